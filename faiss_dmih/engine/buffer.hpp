// Memory for codes and tables: aligned to cache lines, not filled with zeros, on huge pages when
// large (random access to a table of many megabytes is bound by the TLB otherwise), and then given
// back to the system when freed. Or a view of memory that others own too: a part of a file that is
// mapped, or was read as one.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace dmih {

constexpr size_t kHugePage = size_t{1} << 21;

// Blocks of whole huge pages, which add a third at most. Not from malloc: it keeps freed blocks of
// up to 32 MB, and an index that grows by many adds frees all it has several times over.
inline bool is_large(size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    return bytes > SIZE_MAX / 2;  // AddressSanitizer watches over what malloc gives
#else
    return bytes >= kHugePage + kHugePage / 2;
#endif
}

inline size_t round_up(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

inline void* allocate(size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    if (!is_large(bytes)) {
        constexpr size_t kLine = 64;
        void* block = std::aligned_alloc(kLine, round_up(bytes, kLine));
        if (block == nullptr) throw std::bad_alloc();
        return block;
    }
    const size_t pages = round_up(bytes, kHugePage);
    void* mapped = mmap(nullptr, pages + kHugePage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    // What is before the first huge page and after the last goes back.
    char* const from = static_cast<char*>(mapped);
    const size_t before =
        round_up(reinterpret_cast<uintptr_t>(from), kHugePage) - reinterpret_cast<uintptr_t>(from);
    if (before > 0) munmap(from, before);
    munmap(from + before + pages, kHugePage - before);
    madvise(from + before, pages, MADV_HUGEPAGE);  // a wish: failing is no error
    return from + before;
}

inline void release(void* block, size_t bytes) {
    if (is_large(bytes))
        munmap(block, round_up(bytes, kHugePage));
    else
        std::free(block);
}

template <class T>
class Buffer {
public:
    Buffer() = default;

    explicit Buffer(size_t size) : size_(size) {
        if (size == 0) return;
        if (size > SIZE_MAX / sizeof(T)) throw std::bad_alloc();
        data_ = static_cast<T*>(allocate(size * sizeof(T)));
    }

    // A view: `owner` keeps the memory. It must not be written to where the owner's must not.
    Buffer(std::shared_ptr<const void> owner, const T* data, size_t size)
        : data_(const_cast<T*>(data)), size_(size), owner_(std::move(owner)) {}

    // Of its own memory, whatever the other one is.
    explicit Buffer(const Buffer& other) : Buffer(other.size_) {
        if (size_ > 0) std::memcpy(data_, other.data_, bytes());
    }
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          owner_(std::move(other.owner_)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(owner_, other.owner_);
        return *this;
    }
    ~Buffer() {
        if (owner_ == nullptr && data_ != nullptr) release(data_, bytes());
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    size_t bytes() const { return size_ * sizeof(T); }

private:
    T* data_ = nullptr;
    size_t size_ = 0;
    std::shared_ptr<const void> owner_;  // of a view; otherwise null
};

}  // namespace dmih
