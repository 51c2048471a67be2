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

constexpr size_t kPage = size_t{1} << 12, kHugePage = size_t{1} << 21;

inline size_t round_up(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

// What blocks are whole ones of: lines of the cache, from malloc; pages; huge pages, which adds a
// third at most. Pages do not come from malloc: it keeps freed blocks of up to 32 MB, and an index
// that grows by many adds frees all it has several times over.
inline size_t unit_of(size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    constexpr bool kWatched = true;  // AddressSanitizer watches over what malloc gives
#else
    constexpr bool kWatched = false;
#endif
    if (kWatched || bytes < kHugePage / 2) return 64;
    return bytes < kHugePage + kHugePage / 2 ? kPage : kHugePage;
}

inline void* allocate(size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    const size_t unit = unit_of(bytes), size = round_up(bytes, unit);
    if (unit < kPage) {
        // Aligned by hand: aligned_alloc passes by malloc's cache of small blocks, and in a process
        // whose heap has been much used a lone query takes microseconds longer for it.
        void* const from = std::malloc(size + unit);
        if (from == nullptr) throw std::bad_alloc();
        void** const block =
            reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(from) + unit) / unit * unit);
        block[-1] = from;  // malloc's blocks are 16 bytes apart: there is room
        return block;
    }
    // As much more as it may take to begin at a multiple of the unit; what is too much goes back.
    void* mapped = mmap(nullptr, size + unit - kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const auto from = reinterpret_cast<uintptr_t>(mapped);
    const size_t before = round_up(from, unit) - from, after = unit - kPage - before;
    char* const block = static_cast<char*>(mapped) + before;
    if (before > 0) munmap(mapped, before);
    if (after > 0) munmap(block + size, after);
    if (unit == kHugePage) madvise(block, size, MADV_HUGEPAGE);  // a wish: failing is no error
    return block;
}

inline void release(void* block, size_t bytes) {
    const size_t unit = unit_of(bytes);
    if (unit < kPage)
        std::free(static_cast<void**>(block)[-1]);
    else
        munmap(block, round_up(bytes, unit));
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
