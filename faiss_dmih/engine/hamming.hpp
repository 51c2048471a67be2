// A code of d bits is a row of words(d) 64-bit words, little endian as FAISS's bytes are: bit b of
// the code is bit b % 64 of word b / 64. Unused bits of the last word are zero.
#pragma once

#include <cstdint>
#include <cstring>

namespace dmih {

constexpr int kMaxBits = 4096;
constexpr int kMaxWords = kMaxBits / 64;

inline int words_for(int d) {
    return (d + 63) / 64;
}

inline int hamming(const uint64_t* a, const uint64_t* b, int words) {
    int h = 0;
    for (int w = 0; w < words; ++w) h += __builtin_popcountll(a[w] ^ b[w]);
    return h;
}

// n codes of code_size bytes -> n rows of `words` words.
inline void bytes_to_rows(const uint8_t* bytes, size_t n, int code_size, int words,
                          uint64_t* rows) {
    if (code_size == words * 8) {
        if (n > 0) std::memcpy(rows, bytes, n * code_size);
        return;
    }
    for (size_t i = 0; i < n; ++i, bytes += code_size, rows += words) {
        rows[words - 1] = 0;
        std::memcpy(rows, bytes, code_size);
    }
}

// A run of at most 32 consecutive bits of a code: the key of a table, or the difference in it.
struct Substring {
    int begin;
    int bits;

    uint32_t of(const uint64_t* code) const {
        const int w = begin >> 6, shift = begin & 63;
        uint64_t v = code[w] >> shift;
        if (shift + bits > 64) v |= code[w + 1] << (64 - shift);
        return static_cast<uint32_t>(v & ((uint64_t{1} << bits) - 1));
    }

    int distance(const uint64_t* a, const uint64_t* b) const {
        return __builtin_popcount(of(a) ^ of(b));
    }
};

}  // namespace dmih
