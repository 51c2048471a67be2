// Row kernels for AVX-512, eight codes at a time. How ones are counted is a parameter:
//
//   NibbleCount  two nibble look-ups per byte (VPSHUFB, port 5 only) and VPSADBW to sum by 64-bit
//                word: for AVX-512BW without VPOPCNTDQ. Per 64 bytes: load with XOR, two ANDs, a
//                shift, two look-ups, an addition, a sum: 8 operations on two ports, three of them
//                on port 5, 4 cycles: 16 bytes per cycle where scalar popcount takes 8 (derived).
//   WordCount    VPOPCNTQ: a load with XOR, and the count.
//
// For codes of 1, 2 and 4 words the counts of 8 codes are first added crosswise, so that one sum
// serves all 8. Other codes are summed up one by one, in eight registers that are added likewise.
//
// NibbleCount on a Xeon of 2.5 GHz (Cascade Lake), 2026-11-22, ns per code, codes in the L2 cache;
// in parentheses the scalar kernels of rows.hpp, compiled without AVX-512:
//
//   bits       rows, none within   rows, 2 % within   half within    distances
//   64         0.36 (0.64)         0.46 (0.79)        0.90 (1.3)     0.38 (1.14)
//   128        0.61 (0.86)         0.70 (1.07)        1.1 (1.6)      0.61 (1.63)
//   192        2.7 (3.3)           3.1 (3.6)          3.2 (4.0)      2.6 (2.1)
//   256        1.03 (1.90)         1.10 (2.28)        1.5 (2.7)      1.03 (2.66)
//   512        3.0 (3.7)           3.3 (4.1)          3.6 (4.5)      2.9 (5.0)
//   1024       4.6 (12.7)          4.7 (13.0)         5.2 (13.3)     4.5 (9.7)
#pragma once

#include <immintrin.h>

#include "rows.hpp"

namespace dmih::simd {

// In avx512_vpopcntdq.cpp, where WordCount is.
int rows_vpopcntdq(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                   uint32_t* index, uint16_t* distance);
void distances_vpopcntdq(const uint64_t* codes, int n, int words, const uint64_t* query,
                         uint16_t* out);
int match_vpopcntdq(const uint64_t* columns, int words, const uint64_t* const* queries,
                    const int32_t* bound, const uint32_t* list, int n_list, BlockHit* hits);

namespace {

// counts(): by byte or by word, of one register. add(): up to 31 of these. total(): by word.
struct NibbleCount {
    static __m512i counts(__m512i x) {
        const __m512i table =
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        const __m512i low = _mm512_set1_epi8(0x0F);
        const __m512i a = _mm512_shuffle_epi8(table, _mm512_and_si512(x, low));
        const __m512i b = _mm512_shuffle_epi8(
            table,
            _mm512_and_si512(reinterpret_cast<__m512i>(reinterpret_cast<__v32hu>(x) >> 4), low));
        return _mm512_add_epi8(a, b);
    }
    static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi8(a, b); }
    static __m512i total(__m512i x) { return _mm512_sad_epu8(x, _mm512_setzero_si512()); }
};

[[maybe_unused]] inline __m512i add_words(__m512i a, __m512i b) {
    return _mm512_add_epi64(a, b);
}

// Sums of neighbours, by 64 and by 128 bits: a's in the even places, or halves, and b's.
template <class Add>
__m512i pairs(__m512i a, __m512i b, Add add) {
    return add(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

template <class Add>
__m512i quads(__m512i a, __m512i b, Add add) {
    return add(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
}

// The query repeated over a register, and the distances of 8 rows; row i is in lane_of[i].
template <class Count, int kWords>
struct EightRows;

template <class Count>
struct EightRows<Count, 1> {
    static constexpr long long lane_of[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    __m512i query;
    EightRows(const uint64_t* q, int) : query(_mm512_set1_epi64(static_cast<long long>(*q))) {}
    __m512i operator()(const uint64_t* codes) const {
        return Count::total(Count::counts(_mm512_xor_si512(_mm512_loadu_si512(codes), query)));
    }
};

template <class Count>
struct EightRows<Count, 2> {
    static constexpr long long lane_of[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    __m512i query;
    EightRows(const uint64_t* q, int)
        : query(_mm512_broadcast_i64x2(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)))) {}
    __m512i counts(const uint64_t* codes) const {
        return Count::counts(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
    }
    __m512i operator()(const uint64_t* codes) const {
        return Count::total(pairs(counts(codes), counts(codes + 8), Count::add));
    }
};

template <class Count>
struct EightRows<Count, 4> {
    static constexpr long long lane_of[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    __m512i query;
    EightRows(const uint64_t* q, int)
        : query(_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)))) {}
    __m512i counts(const uint64_t* codes) const {
        return Count::counts(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
    }
    __m512i operator()(const uint64_t* codes) const {
        const __m512i ab = pairs(counts(codes), counts(codes + 8), Count::add);
        const __m512i cd = pairs(counts(codes + 16), counts(codes + 24), Count::add);
        return Count::total(quads(ab, cd, Count::add));
    }
};

// Any number of words.
template <class Count>
struct EightRows<Count, 0> {
    static constexpr long long lane_of[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    const uint64_t* query;
    int words, whole;  // `whole` of them in full registers, 1 to 8 after these
    __mmask8 last;
    __m512i query_last;
    EightRows(const uint64_t* q, int n)
        : query(q),
          words(n),
          whole((n - 1) / 8 * 8),
          last(static_cast<__mmask8>(0xFF >> (8 - (n - whole)))),
          query_last(_mm512_maskz_loadu_epi64(last, q + whole)) {}
    __m512i row(const uint64_t* code) const {
        const auto ones = [](__m512i a, __m512i b) {
            return Count::counts(_mm512_xor_si512(a, b));
        };
        __m512i sum = ones(_mm512_maskz_loadu_epi64(last, code + whole), query_last);
        for (int w = 0; w < whole; w += 8)
            sum =
                Count::add(sum, ones(_mm512_loadu_si512(code + w), _mm512_loadu_si512(query + w)));
        return Count::total(sum);
    }
    __m512i operator()(const uint64_t* codes) const {
        __m512i sums[4];
        for (int i = 0; i < 4; ++i, codes += 2 * words)
            sums[i] = pairs(row(codes), row(codes + words), add_words);
        return quads(quads(sums[0], sums[1], add_words), quads(sums[2], sums[3], add_words),
                     add_words);
    }
};

template <class Count, int kWords>
__m512i in_order(const EightRows<Count, kWords>&, __m512i h) {
    return _mm512_permutexvar_epi64(_mm512_loadu_si512(EightRows<Count, kWords>::lane_of), h);
}

template <class Count, int kWords>
int rows_by_eight(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                  uint32_t* index, uint16_t* distance) {
    const EightRows<Count, kWords> eight(query, words);
    const __m512i most = _mm512_set1_epi64(bound);
    int found = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m512i lanes = eight(codes + static_cast<size_t>(i) * words);
        if (_mm512_cmple_epi64_mask(lanes, most) == 0) continue;
        const __m512i h = in_order(eight, lanes);
        const __mmask8 hits = _mm512_cmple_epi64_mask(h, most);
        const __m256i row =
            _mm256_add_epi32(_mm256_set1_epi32(i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        // All 8 are stored: found <= i, so there is room.
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(index + found),
                            _mm256_maskz_compress_epi32(hits, row));
        _mm_storeu_si128(
            reinterpret_cast<__m128i*>(distance + found),
            _mm256_cvtepi32_epi16(_mm256_maskz_compress_epi32(hits, _mm512_cvtepi64_epi32(h))));
        found += __builtin_popcount(hits);
    }
    return rows_rest<kWords>(codes, i, n, words, query, bound, index, distance, found);
}

template <class Count>
int rows_avx512(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                uint32_t* index, uint16_t* distance) {
    if (bound < 0) return 0;
    switch (words) {
        case 1: return rows_by_eight<Count, 1>(codes, n, 1, query, bound, index, distance);
        case 2: return rows_by_eight<Count, 2>(codes, n, 2, query, bound, index, distance);
        case 4: return rows_by_eight<Count, 4>(codes, n, 4, query, bound, index, distance);
        default: return rows_by_eight<Count, 0>(codes, n, words, query, bound, index, distance);
    }
}

template <class Count, int kWords>
void distances_by_eight(const uint64_t* codes, int n, int words, const uint64_t* query,
                        uint16_t* out) {
    const EightRows<Count, kWords> eight(query, words);
    int i = 0;
    for (; i + 8 <= n; i += 8, codes += 8 * words)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm512_cvtepi64_epi16(in_order(eight, eight(codes))));
    distances_popcount(codes, n - i, words, query, out + i);
}

template <class Count>
void distances_avx512(const uint64_t* codes, int n, int words, const uint64_t* query,
                      uint16_t* out) {
    switch (words) {
        case 1: return distances_by_eight<Count, 1>(codes, n, 1, query, out);
        case 2: return distances_by_eight<Count, 2>(codes, n, 2, query, out);
        case 4: return distances_by_eight<Count, 4>(codes, n, 4, query, out);
        default: return distances_by_eight<Count, 0>(codes, n, words, query, out);
    }
}

[[maybe_unused]] void select_avx512(const uint16_t* center, const uint16_t* bound, int n,
                                    uint16_t from, uint16_t to, uint64_t* need) {
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
