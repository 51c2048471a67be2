// Where an index is written to and read from.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace dmih {

class Sink {
public:
    virtual ~Sink() = default;
    virtual void write(const void* data, size_t size) = 0;
};

// Front to back.
class Source {
public:
    static constexpr uint64_t kUnknown = UINT64_MAX;

    virtual ~Source() = default;
    // Fills `out` as far as there is anything; returns how far.
    virtual size_t read(void* out, size_t size) = 0;
    // Bytes still to come, where that is known.
    virtual uint64_t left() const = 0;
    // As read(), of bytes that nobody wants.
    virtual uint64_t skip(uint64_t size);
};

class FileSink : public Sink {
public:
    explicit FileSink(int file) : file_(file) {}
    void write(const void* data, size_t size) override;

private:
    int file_;
};

// `size` bytes of a file from `at` on; the file's own position is left alone.
class FileSource : public Source {
public:
    FileSource(int file, uint64_t at, uint64_t size) : file_(file), at_(at), end_(at + size) {}
    size_t read(void* out, size_t size) override;
    uint64_t left() const override { return end_ - at_; }
    uint64_t skip(uint64_t size) override;

private:
    int file_;
    uint64_t at_, end_;
};

class MemorySource : public Source {
public:
    MemorySource(const void* data, size_t size)
        : data_(static_cast<const uint8_t*>(data)), size_(size) {}
    size_t read(void* out, size_t size) override;
    uint64_t left() const override { return size_; }
    uint64_t skip(uint64_t size) override;

private:
    const uint8_t* data_;
    size_t size_;
};

// A file in memory, read-only; its pages are shared by all processes that map it.
class Mapping {
public:
    Mapping(int file, size_t size);
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    const uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

private:
    const uint8_t* data_ = nullptr;
    size_t size_;
};

}  // namespace dmih
