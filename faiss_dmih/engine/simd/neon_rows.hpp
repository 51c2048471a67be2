// Row kernels for NEON: CNT counts the ones of 16 bytes; additions of neighbours bring the counts
// of eight rows into one register, in order.
#pragma once

#include <arm_neon.h>

#include "rows.hpp"

namespace dmih::simd {
namespace {

inline uint8x16_t bytes_at(const uint64_t* p) {
    return vreinterpretq_u8_u64(vld1q_u64(p));
}

inline uint8x16_t word_at(const uint64_t* p) {
    return vreinterpretq_u8_u64(vcombine_u64(vld1_u64(p), vdup_n_u64(0)));
}

inline uint8x16_t ones(uint8x16_t a, uint8x16_t b) {
    return vcntq_u8(veorq_u8(a, b));
}

// The distances of 8 rows of 2 or 4 words. A row's counts are bytes of at most 16, in 16 places;
// each rank of additions halves the places.
template <int kWords>
struct EightRows {
    uint8x16_t query[kWords / 2];
    EightRows(const uint64_t* q, int) {
        for (int w = 0; w < kWords; w += 2) query[w / 2] = bytes_at(q + w);
    }
    uint8x16_t row(const uint64_t* code) const {
        uint8x16_t sum = ones(bytes_at(code), query[0]);
        for (int w = 2; w < kWords; w += 2)
            sum = vaddq_u8(sum, ones(bytes_at(code + w), query[w / 2]));
        return sum;
    }
    uint8x16_t two(const uint64_t* codes) const {
        return vpaddq_u8(row(codes), row(codes + kWords));
    }
    uint8x16_t four(const uint64_t* codes) const {
        return vpaddq_u8(two(codes), two(codes + 2 * kWords));
    }
    uint16x8_t operator()(const uint64_t* codes) const {
        return vpaddlq_u8(vpaddq_u8(four(codes), four(codes + 4 * kWords)));
    }
};

// Of one word: two rows to a register.
template <>
struct EightRows<1> {
    uint8x16_t query;
    EightRows(const uint64_t* q, int) : query(vreinterpretq_u8_u64(vdupq_n_u64(*q))) {}
    uint8x16_t two(const uint64_t* codes) const { return ones(bytes_at(codes), query); }
    uint8x16_t four(const uint64_t* codes) const { return vpaddq_u8(two(codes), two(codes + 2)); }
    uint16x8_t operator()(const uint64_t* codes) const {
        return vpaddlq_u8(vpaddq_u8(four(codes), four(codes + 4)));
    }
};

// Of any number of words, summed up in 16 bits.
template <>
struct EightRows<0> {
    const uint64_t* query;
    int words;
    EightRows(const uint64_t* q, int n) : query(q), words(n) {}
    uint16x8_t row(const uint64_t* code) const {
        uint16x8_t sum = vdupq_n_u16(0);
        int w = 0;
        for (; w + 2 <= words; w += 2)
            sum = vpadalq_u8(sum, ones(bytes_at(code + w), bytes_at(query + w)));
        if (w < words) sum = vpadalq_u8(sum, ones(word_at(code + w), word_at(query + w)));
        return sum;
    }
    uint16x8_t two(const uint64_t* codes) const {
        return vpaddq_u16(row(codes), row(codes + words));
    }
    uint16x8_t four(const uint64_t* codes) const {
        return vpaddq_u16(two(codes), two(codes + 2 * words));
    }
    uint16x8_t operator()(const uint64_t* codes) const {
        return vpaddq_u16(four(codes), four(codes + 4 * words));
    }
};

template <int kWords>
int rows_by_eight(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                  uint32_t* index, uint16_t* distance) {
    const EightRows<kWords> eight(query, words);
    int found = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        const uint16x8_t h = eight(codes + static_cast<size_t>(i) * words);
        if (vminvq_u16(h) > bound) continue;
        uint16_t of_row[8];
        vst1q_u16(of_row, h);
        for (int row = 0; row < 8; ++row) {
            index[found] = static_cast<uint32_t>(i + row);
            distance[found] = of_row[row];
            found += of_row[row] <= bound;
        }
    }
    return rows_rest<kWords>(codes, i, n, words, query, bound, index, distance, found);
}

int rows_neon(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
              uint32_t* index, uint16_t* distance) {
    switch (words) {
        case 1: return rows_by_eight<1>(codes, n, 1, query, bound, index, distance);
        case 2: return rows_by_eight<2>(codes, n, 2, query, bound, index, distance);
        case 4: return rows_by_eight<4>(codes, n, 4, query, bound, index, distance);
        default: return rows_by_eight<0>(codes, n, words, query, bound, index, distance);
    }
}

template <int kWords>
void distances_by_eight(const uint64_t* codes, int n, int words, const uint64_t* query,
                        uint16_t* out) {
    const EightRows<kWords> eight(query, words);
    int i = 0;
    for (; i + 8 <= n; i += 8, codes += 8 * words) vst1q_u16(out + i, eight(codes));
    distances_popcount(codes, n - i, words, query, out + i);
}

void distances_neon(const uint64_t* codes, int n, int words, const uint64_t* query, uint16_t* out) {
    switch (words) {
        case 1: return distances_by_eight<1>(codes, n, 1, query, out);
        case 2: return distances_by_eight<2>(codes, n, 2, query, out);
        case 4: return distances_by_eight<4>(codes, n, 4, query, out);
        default: return distances_by_eight<0>(codes, n, words, query, out);
    }
}

void select_neon(const uint16_t* center, const uint16_t* bound, int n, uint16_t from, uint16_t to,
                 uint64_t* need) {
    static constexpr uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint16x8_t bits = vld1q_u16(kBits);
    const uint16x8_t most = vdupq_n_u16(to), least = vdupq_n_u16(from);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const uint16x8_t c = vld1q_u16(center + i), t = vld1q_u16(bound + i);
        const uint16x8_t hit =
            vandq_u16(vcleq_u16(vqsubq_u16(c, t), most), vcgeq_u16(vqaddq_u16(c, t), least));
        need[i / 64] |= static_cast<uint64_t>(vaddvq_u16(vandq_u16(hit, bits))) << (i % 64);
    }
    select_rest(center, bound, i, n, from, to, need);
}

}  // namespace
}  // namespace dmih::simd
