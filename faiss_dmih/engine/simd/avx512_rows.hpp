// Row kernels for AVX-512BW without VPOPCNTDQ: the popcount of 64 bytes is two nibble look-ups
// (VPSHUFB, port 5 only) and VPSADBW sums it by 64-bit word.
//
// Per 64 bytes: load with XOR, two ANDs, a shift, two look-ups, an addition, a sum: 8 operations on
// two ports, three of them on port 5, 4 cycles: 16 bytes per cycle where scalar popcount takes 8
// (derived, not timed). For codes of 1, 2 and 4 words the byte counts of 8 codes are first added
// crosswise, so that one sum serves all 8.
#pragma once

#include <immintrin.h>

#include "rows.hpp"

namespace dmih::simd {
namespace {

inline __m512i byte_counts(__m512i x) {
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(0x0F);
    const __m512i a = _mm512_shuffle_epi8(table, _mm512_and_si512(x, low));
    const __m512i b = _mm512_shuffle_epi8(
        table, _mm512_and_si512(reinterpret_cast<__m512i>(reinterpret_cast<__v32hu>(x) >> 4), low));
    return _mm512_add_epi8(a, b);
}

// The query repeated over a register, and the distances of 8 rows; place[i] is the row of lane i.
template <int kWords>
struct EightRows;

template <>
struct EightRows<1> {
    static constexpr int place[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    __m512i query;
    explicit EightRows(const uint64_t* q) : query(_mm512_set1_epi64(static_cast<long long>(*q))) {}
    __m512i operator()(const uint64_t* codes) const {
        const __m512i x = _mm512_xor_si512(_mm512_loadu_si512(codes), query);
        return _mm512_sad_epu8(byte_counts(x), _mm512_setzero_si512());
    }
};

template <>
struct EightRows<2> {
    static constexpr int place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    __m512i query;
    explicit EightRows(const uint64_t* q)
        : query(_mm512_broadcast_i64x2(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)))) {}
    __m512i counts(const uint64_t* codes) const {
        return byte_counts(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
    }
    __m512i operator()(const uint64_t* codes) const {
        const __m512i a = counts(codes), b = counts(codes + 8);
        const __m512i sum =
            _mm512_add_epi8(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        return _mm512_sad_epu8(sum, _mm512_setzero_si512());
    }
};

template <>
struct EightRows<4> {
    static constexpr int place[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    __m512i query;
    explicit EightRows(const uint64_t* q)
        : query(_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)))) {}
    __m512i counts(const uint64_t* codes) const {
        return byte_counts(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
    }
    static __m512i pairs(__m512i a, __m512i b) {
        return _mm512_add_epi8(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    }
    __m512i operator()(const uint64_t* codes) const {
        const __m512i ab = pairs(counts(codes), counts(codes + 8));
        const __m512i cd = pairs(counts(codes + 16), counts(codes + 24));
        const __m512i sum =
            _mm512_add_epi8(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xDD));
        return _mm512_sad_epu8(sum, _mm512_setzero_si512());
    }
};

template <int kWords>
int rows_by_eight(const uint64_t* codes, int n, const uint64_t* query, int bound, uint32_t* index,
                  uint16_t* distance) {
    const EightRows<kWords> eight(query);
    const __m512i most = _mm512_set1_epi64(bound);
    int found = 0, i = 0;
    for (; i + 8 <= n; i += 8, codes += 8 * kWords) {
        const __m512i h = eight(codes);
        if (_mm512_cmple_epi64_mask(h, most) == 0) continue;
        uint64_t of_lane[8];
        _mm512_storeu_si512(of_lane, h);
        uint16_t of_row[8];
        for (int lane = 0; lane < 8; ++lane)
            of_row[EightRows<kWords>::place[lane]] = static_cast<uint16_t>(of_lane[lane]);
        for (int row = 0; row < 8; ++row) {
            index[found] = static_cast<uint32_t>(i + row);
            distance[found] = of_row[row];
            found += of_row[row] <= bound;
        }
    }
    const int rest =
        rows_fixed<kWords>(codes, n - i, kWords, query, bound, index + found, distance + found);
    for (int j = 0; j < rest; ++j) index[found + j] += static_cast<uint32_t>(i);
    return found + rest;
}

int rows_avx512(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                uint32_t* index, uint16_t* distance) {
    if (bound < 0) return 0;
    switch (words) {
        case 1: return rows_by_eight<1>(codes, n, query, bound, index, distance);
        case 2: return rows_by_eight<2>(codes, n, query, bound, index, distance);
        case 4: return rows_by_eight<4>(codes, n, query, bound, index, distance);
        default: return rows_popcount(codes, n, words, query, bound, index, distance);
    }
}

template <int kWords>
void distances_by_eight(const uint64_t* codes, int n, const uint64_t* query, uint16_t* out) {
    const EightRows<kWords> eight(query);
    alignas(64) uint64_t lane_of[8];
    for (uint64_t lane = 0; lane < 8; ++lane) lane_of[EightRows<kWords>::place[lane]] = lane;
    const __m512i in_order = _mm512_load_si512(lane_of);
    int i = 0;
    for (; i + 8 <= n; i += 8, codes += 8 * kWords)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm512_cvtepi64_epi16(_mm512_permutexvar_epi64(in_order, eight(codes))));
    distances_popcount(codes, n - i, kWords, query, out + i);
}

void distances_avx512(const uint64_t* codes, int n, int words, const uint64_t* query,
                      uint16_t* out) {
    switch (words) {
        case 1: return distances_by_eight<1>(codes, n, query, out);
        case 2: return distances_by_eight<2>(codes, n, query, out);
        case 4: return distances_by_eight<4>(codes, n, query, out);
        default: return distances_popcount(codes, n, words, query, out);
    }
}

void select_avx512(const uint16_t* center, const uint16_t* bound, int n, uint16_t from, uint16_t to,
                   uint64_t* need) {
    const __m512i most = _mm512_set1_epi16(static_cast<short>(to));
    const __m512i least = _mm512_set1_epi16(static_cast<short>(from));
    for (int i = 0; i < n; i += 32) {
        const __mmask32 live = n - i >= 32 ? ~0u : (1u << (n - i)) - 1;
        const __m512i c = _mm512_maskz_loadu_epi16(live, center + i);
        const __m512i t = _mm512_maskz_loadu_epi16(live, bound + i);
        const __mmask32 near = _mm512_mask_cmple_epu16_mask(live, _mm512_subs_epu16(c, t), most);
        const __mmask32 hit = _mm512_mask_cmpge_epu16_mask(near, _mm512_adds_epu16(c, t), least);
        need[i / 64] |= static_cast<uint64_t>(hit) << (i % 64);
    }
}

}  // namespace
}  // namespace dmih::simd
