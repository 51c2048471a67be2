// Where the buckets of a table begin and end, by key.
//
// Packed: a cache line for 29 keys, with 32 bits for where the first of them begins and 16 for how
// far from there each begins and ends. That is half the memory of plain 32-bit offsets, and both
// ends of a bucket are in one line. Where 29 buckets have more than 65,535 entries together, and in
// mapped files, the offsets are plain: 2^bits + 1 ascending numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "buffer.hpp"

namespace dmih {

class Offsets {
public:
    Offsets() = default;
    explicit Offsets(Buffer<uint32_t> plain) : keys_(plain.size() - 1), plain_(std::move(plain)) {}

    // Where that can be done. The offsets must ascend, and be final.
    void pack() {
        if (plain_.empty()) return;
        Buffer<Line> lines(keys_ / kKeys + 1);
        for (size_t first = 0; first <= keys_; first += kKeys) {
            Line& line = lines[first / kKeys];
            line.begin = plain_[first];
            for (size_t i = 0; i <= kKeys; ++i) {
                const uint32_t from_begin = plain_[std::min(first + i, keys_)] - line.begin;
                if (from_begin > UINT16_MAX) return;
                line.ends[i] = static_cast<uint16_t>(from_begin);
            }
        }
        lines_ = std::move(lines);
        plain_ = Buffer<uint32_t>();
    }

    size_t keys() const { return keys_; }

    // Begin and end.
    std::pair<uint32_t, uint32_t> bucket(size_t key) const {
        if (!plain_.empty()) return {plain_[key], plain_[key + 1]};
        const Line& line = lines_[key / kKeys];
        const uint16_t* const end = &line.ends[key % kKeys];
        return {line.begin + end[0], line.begin + end[1]};
    }

    void prefetch(size_t key) const {
        if (plain_.empty())
            __builtin_prefetch(&lines_[key / kKeys]);
        else
            __builtin_prefetch(&plain_[key]);
    }

    size_t bytes() const { return plain_.bytes() + lines_.bytes(); }

private:
    static constexpr size_t kKeys = 29;
    struct Line {
        uint32_t begin;
        uint16_t ends[kKeys + 1];  // beyond it; of the key before the first, which is 0, and so on
    };
    static_assert(sizeof(Line) == 64);

    size_t keys_ = 0;
    Buffer<uint32_t> plain_;
    Buffer<Line> lines_;
};

}  // namespace dmih
