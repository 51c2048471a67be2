#include "streams.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace dmih {
namespace {

// Linux transfers less than 2 GB at a time.
constexpr size_t kTransfer = size_t{1} << 30;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

uint64_t Source::skip(uint64_t size) {
    constexpr size_t kChunk = 1 << 16;
    const auto scratch = std::make_unique<uint8_t[]>(kChunk);
    uint64_t done = 0;
    while (done < size) {
        const size_t n = read(scratch.get(), std::min<uint64_t>(kChunk, size - done));
        if (n == 0) break;
        done += n;
    }
    return done;
}

void FileSink::write(const void* data, size_t size) {
    const char* from = static_cast<const char*>(data);
    while (size > 0) {
        const ssize_t n = ::write(file_, from, std::min(size, kTransfer));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail("writing an index");
        from += n;
        size -= static_cast<size_t>(n);
    }
}

size_t FileSource::read(void* out, size_t size) {
    size = std::min<uint64_t>(size, left());
    size_t done = 0;
    while (done < size) {
        const ssize_t n = pread(file_, static_cast<char*>(out) + done,
                                std::min(size - done, kTransfer), static_cast<off_t>(at_));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail("reading an index");
        if (n == 0) break;
        done += static_cast<size_t>(n);
        at_ += static_cast<uint64_t>(n);
    }
    return done;
}

uint64_t FileSource::skip(uint64_t size) {
    size = std::min(size, left());
    at_ += size;
    return size;
}

size_t MemorySource::read(void* out, size_t size) {
    size = std::min(size, size_);
    if (size > 0) std::memcpy(out, data_, size);
    return skip(size);
}

uint64_t MemorySource::skip(uint64_t size) {
    size = std::min<uint64_t>(size, size_);
    data_ += size;
    size_ -= size;
    return size;
}

Mapping::Mapping(int file, size_t size) : size_(size) {
    if (size == 0) return;
    void* const at = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) fail("mapping an index");
    data_ = static_cast<const uint8_t*>(at);
}

Mapping::~Mapping() {
    if (size_ > 0) munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace dmih
