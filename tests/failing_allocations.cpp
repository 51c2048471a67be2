// A library to preload: of the allocations of C++ programs, one fails. (Python's own are others.)
// Built by tests/test_allocations.py.
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> left{-1};  // allocations until the one that fails; negative: none does

bool fails() {
    return left.load() >= 0 && left.fetch_sub(1) == 0;
}

}  // namespace

extern "C" {

// The n-th from now on, counted from 0.
void fail_allocation(long n) {
    left = n;
}

// None any more. Returns how many were still missing; negative: it has failed.
long stop_failing() {
    return left.exchange(-1);
}

void* aligned_alloc(size_t alignment, size_t size) {
    using Function = void* (*)(size_t, size_t);
    static const Function next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "aligned_alloc"));
    return fails() ? nullptr : next(alignment, size);
}
}

void* operator new(size_t size) {
    void* const out = fails() ? nullptr : std::malloc(size > 0 ? size : 1);
    if (out == nullptr) throw std::bad_alloc();
    return out;
}

void operator delete(void* memory) noexcept {
    std::free(memory);
}

void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
