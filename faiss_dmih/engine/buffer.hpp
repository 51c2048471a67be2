// Memory for codes and tables: aligned to cache lines, not filled with zeros, on huge pages when
// large (random access to a table of many megabytes is bound by the TLB otherwise). Or a view of
// memory that others own too: a part of a file that is mapped, or was read as one.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace dmih {

template <class T>
class Buffer {
public:
    Buffer() = default;

    explicit Buffer(size_t size) : size_(size) {
        if (size == 0) return;
        constexpr size_t kHuge = size_t{1} << 21;
        if (size > (SIZE_MAX - kHuge) / sizeof(T)) throw std::bad_alloc();
        // Rounding up to whole huge pages adds a third at most.
        const size_t align = size * sizeof(T) >= kHuge + kHuge / 2 ? kHuge : 64;
        const size_t bytes = (size * sizeof(T) + align - 1) / align * align;
        data_ = static_cast<T*>(std::aligned_alloc(align, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
        if (align == kHuge) madvise(data_, bytes, MADV_HUGEPAGE);  // a wish: failing is no error
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
        if (owner_ == nullptr) std::free(data_);
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
