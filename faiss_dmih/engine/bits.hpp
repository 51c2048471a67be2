// A set of numbers below n, one bit each; and how many of its members come before a number, by
// which what is left of a sequence is numbered anew.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "parallel.hpp"

namespace dmih {

class Bits {
public:
    Bits() = default;
    explicit Bits(uint64_t n) : n_(n), words_(n / 64 + 2, 0) {}

    uint64_t size() const { return n_; }
    bool operator[](uint64_t i) const { return words_[i >> 6] >> (i & 63) & 1; }
    void set(uint64_t i) { words_[i >> 6] |= uint64_t{1} << (i & 63); }

    // The words, of which the last may hold bits beyond n: those stay zero.
    uint64_t words() const { return (n_ + 63) / 64; }
    uint64_t& word(uint64_t w) { return words_[w]; }
    const uint64_t& word(uint64_t w) const { return words_[w]; }
    void trim() {
        if (n_ % 64 != 0) words_[n_ / 64] &= (uint64_t{1} << (n_ % 64)) - 1;
    }

    // Members in [begin, end).
    uint64_t count(uint64_t begin, uint64_t end) const {
        uint64_t out = 0, i = begin;
        if (i % 64 == 0)
            for (; i + 64 <= end; i += 64) out += ones(words_[i >> 6]);
        for (; i < end; i += 64) out += ones(from(i) & below(end - i));
        return out;
    }
    uint64_t count() const { return count(0, n_); }

    // Whether i, i + 1, .. are members: 64 of them, from the lowest bit on.
    uint64_t from(uint64_t i) const {
        const uint64_t w = i >> 6, shift = i & 63;
        return shift == 0 ? words_[w] : words_[w] >> shift | words_[w + 1] << (64 - shift);
    }

    // Calls visit(i) for the members in [begin, end), ascending.
    template <class Visit>
    void each(uint64_t begin, uint64_t end, Visit visit) const {
        for (uint64_t at = begin; at < end; at += 64) {
            while (at % kBlock == 0 && at + kBlock <= end && !any(at)) at += kBlock;
            if (at >= end) return;
            for (uint64_t left = (at % 64 == 0 ? words_[at >> 6] : from(at)) & below(end - at);
                 left != 0; left &= left - 1)
                visit(at + static_cast<uint64_t>(__builtin_ctzll(left)));
        }
    }

    size_t bytes() const { return words_.size() * 8; }

private:
    // Most sets are sparse: so many numbers are passed over at once.
    static constexpr uint64_t kBlock = 512;

    // Whether there are members among the kBlock from i on, a multiple of 64.
    bool any(uint64_t i) const {
        uint64_t out = 0;
        for (uint64_t w = i >> 6; w < (i + kBlock) >> 6; ++w) out |= words_[w];
        return out != 0;
    }
    static uint64_t below(uint64_t n) { return n < 64 ? (uint64_t{1} << n) - 1 : ~uint64_t{0}; }
    static uint64_t ones(uint64_t word) {
        return static_cast<uint64_t>(__builtin_popcountll(word));
    }

    uint64_t n_ = 0;
    std::vector<uint64_t> words_;
};

// Those of n < 2^32 numbers that are kept, and their new numbers.
class Kept {
public:
    explicit Kept(Bits bits) : bits_(std::move(bits)), before_(bits_.words() + 1) {
        uint32_t n = 0;
        for (uint64_t w = 0; w < bits_.words(); ++w) {
            before_[w] = n;
            n += static_cast<uint32_t>(__builtin_popcountll(bits_.word(w)));
        }
        before_.back() = n;
    }

    uint32_t size() const { return before_.back(); }
    bool operator[](uint32_t i) const { return bits_[i]; }
    // How many are kept of those below i, i <= n: the new number of i, if it is kept.
    uint32_t number(uint32_t i) const {
        const uint64_t lower = bits_.word(i >> 6) & ((uint64_t{1} << (i & 63)) - 1);
        return before_[i >> 6] + static_cast<uint32_t>(__builtin_popcountll(lower));
    }
    template <class Visit>
    void each(const Control& control, Visit visit) const {
        constexpr uint64_t kChunk = 1 << 16;
        for (uint64_t at = 0; at < bits_.size(); at += kChunk) {
            control.poll();
            bits_.each(at, std::min(at + kChunk, bits_.size()),
                       [&](uint64_t i) { visit(static_cast<uint32_t>(i)); });
        }
    }

private:
    Bits bits_;
    std::vector<uint32_t> before_;  // per word; and one more
};

}  // namespace dmih
