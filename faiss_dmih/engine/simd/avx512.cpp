// AVX-512 (F, BW, VL, DQ): 512 codes per plane, a full adder is two VPTERNLOGQ. See fold.hpp.
#include <immintrin.h>

#include "avx512_rows.hpp"
#include "fold.hpp"

namespace dmih::simd {
namespace {

// The truth table of the majority of a, b and c, complemented where v has bits 0, 1 and 2.
constexpr int majority_table(int v) {
    int table = 0;
    for (int at = 0; at < 8; ++at) {
        const int a = (at >> 2 ^ v) & 1, b = (at >> 1 ^ v >> 1) & 1, c = (at ^ v >> 2) & 1;
        table |= (a + b + c >= 2) << at;
    }
    return table;
}

struct Avx512 : Plain<Avx512, 8> {
    using reg = __m512i;
    using words = uint64_t __attribute__((vector_size(64)));
    static constexpr int lanes = 8;
    static reg load(const uint64_t* p) { return _mm512_load_si512(p); }
    static reg load_bytes(const char* p) { return _mm512_load_si512(p); }
    static reg load_unaligned(const uint64_t* p) { return _mm512_loadu_si512(p); }
    static void store(uint64_t* p, reg x) { _mm512_store_si512(p, x); }
    static void store_unaligned(uint64_t* p, reg x) { _mm512_storeu_si512(p, x); }
    static reg broadcast(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
    static reg and_(reg a, reg b) { return _mm512_and_si512(a, b); }
    static reg or_(reg a, reg b) { return _mm512_or_si512(a, b); }
    static reg xor_(reg a, reg b) { return _mm512_xor_si512(a, b); }
    template <int N>
    static reg shr(reg a) {
        return reg(words(a) >> N);
    }
    template <int N>
    static reg shl(reg a) {
        return reg(words(a) << N);
    }
    static reg majority(reg a, reg b, reg c) { return _mm512_ternarylogic_epi64(a, b, c, 0xE8); }
    static void full_add(reg a, reg b, reg c, reg& sum, reg& carry) {
        // VPTERNLOG overwrites an operand: the majority of a, b, c told from sum, b, c (where b and
        // c agree it is b, elsewhere not the sum) leaves nothing to copy.
        sum = _mm512_ternarylogic_epi64(a, b, c, 0x96);
        carry = _mm512_ternarylogic_epi64(b, sum, c, 0xB2);
    }

    // All planes of a triple come of one operation each.
    static void triple(reg a, reg b, reg c, reg (&plane)[kPlanesPerTriple]) {
        plane[0] = _mm512_ternarylogic_epi64(a, b, c, 0x96);
        plane[1] = _mm512_ternarylogic_epi64(a, b, c, 0x69);
        plane[2] = _mm512_ternarylogic_epi64(a, b, c, majority_table(0));
        plane[3] = _mm512_ternarylogic_epi64(a, b, c, majority_table(1));
        plane[4] = _mm512_ternarylogic_epi64(a, b, c, majority_table(2));
        plane[5] = _mm512_ternarylogic_epi64(a, b, c, majority_table(3));
        plane[6] = _mm512_ternarylogic_epi64(a, b, c, majority_table(4));
        plane[7] = _mm512_ternarylogic_epi64(a, b, c, majority_table(5));
        plane[8] = _mm512_ternarylogic_epi64(a, b, c, majority_table(6));
        plane[9] = _mm512_ternarylogic_epi64(a, b, c, majority_table(7));
    }

    // Whole bytes by one shuffle each, bits by a shift and a choice: two and four operations
    // instead of five.
    template <int J>
    static void exchange(reg& a, reg& b) {
        const reg before = a;
        if constexpr (J >= 8) {
            constexpr uint64_t kLow = byte_mask(J / 8);
            a = _mm512_mask_shuffle_epi8(a, ~kLow, b, bytes_moved<-J / 8>());
            b = _mm512_mask_shuffle_epi8(b, kLow, before, bytes_moved<J / 8>());
        } else {
            const reg low = broadcast(kLowBits<J>);
            a = _mm512_ternarylogic_epi64(low, a, shl<J>(b), 0xCA);  // low ? a : b << J
            b = _mm512_ternarylogic_epi64(low, shr<J>(before), b, 0xCA);
        }
    }

    // Of each 2J bytes the low ones.
    static constexpr uint64_t byte_mask(int bytes) { return ~0ull / ((1ull << bytes) + 1); }

    template <int kBy>
    static reg bytes_moved() {
        const __m128i places = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm512_broadcast_i32x4(_mm_add_epi8(places, _mm_set1_epi8(kBy)));
    }

    // Eight codes at a time, crosswise: log2(words) shuffles for each word of them, where eight
    // loads of single words would be followed by as many stores.
    static constexpr int kSplit = 8;
    static void split(const uint64_t* codes, int words, int n, uint64_t* to, size_t row,
                      size_t column) {
        for (int r = 0; r < 64; ++r, codes += 8 * words) {
            reg out[8];
            if (words == 2)
                split_pairs(codes, out);
            else if (n <= 4)
                split_fours(codes, words, n, out);
            else
                split_eights(codes, words, n, out);
            for (int w = 0; w < n; ++w) store(to + r * row + w * column, out[w]);
        }
    }

    static void split_pairs(const uint64_t* codes, reg* out) {
        const reg a = load_unaligned(codes), b = load_unaligned(codes + 8);
        const reg even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
        out[0] = _mm512_permutex2var_epi64(a, even, b);
        out[1] = _mm512_permutex2var_epi64(a, _mm512_add_epi64(even, broadcast(1)), b);
    }

    static void split_fours(const uint64_t* codes, int words, int n, reg* out) {
        const __mmask8 mask = static_cast<__mmask8>((1u << n) - 1);
        const auto code = [&](int i) {
            return _mm256_maskz_loadu_epi64(mask, codes + size_t(i) * words);
        };
        reg x[4];  // codes i and i + 4
        for (int i = 0; i < 4; ++i)
            x[i] = _mm512_inserti64x4(_mm512_castsi256_si512(code(i)), code(i + 4), 1);
        const reg even[2] = {_mm512_unpacklo_epi64(x[0], x[1]), _mm512_unpacklo_epi64(x[2], x[3])};
        const reg odd[2] = {_mm512_unpackhi_epi64(x[0], x[1]), _mm512_unpackhi_epi64(x[2], x[3])};
        const reg low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        const reg high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        out[0] = _mm512_permutex2var_epi64(even[0], low, even[1]);
        out[1] = _mm512_permutex2var_epi64(odd[0], low, odd[1]);
        out[2] = _mm512_permutex2var_epi64(even[0], high, even[1]);
        out[3] = _mm512_permutex2var_epi64(odd[0], high, odd[1]);
    }

    static void split_eights(const uint64_t* codes, int words, int n, reg* out) {
        const __mmask8 mask = static_cast<__mmask8>((1u << n) - 1);
        reg x[8], pairs[8];
        for (int i = 0; i < 8; ++i)
            x[i] = _mm512_maskz_loadu_epi64(mask, codes + size_t(i) * words);
        for (int i = 0; i < 8; i += 2) {  // word 2j and 2j + 1 of codes i and i + 1 in lane j
            pairs[i] = _mm512_unpacklo_epi64(x[i], x[i + 1]);
            pairs[i + 1] = _mm512_unpackhi_epi64(x[i], x[i + 1]);
        }
        for (int odd = 0; odd < 2; ++odd) {
            const reg a = pairs[odd], b = pairs[2 + odd], c = pairs[4 + odd], d = pairs[6 + odd];
            const reg ab = _mm512_shuffle_i64x2(a, b, 0x88), cd = _mm512_shuffle_i64x2(c, d, 0x88);
            const reg ef = _mm512_shuffle_i64x2(a, b, 0xDD), gh = _mm512_shuffle_i64x2(c, d, 0xDD);
            out[odd] = _mm512_shuffle_i64x2(ab, cd, 0x88);      // lanes 0
            out[4 + odd] = _mm512_shuffle_i64x2(ab, cd, 0xDD);  // lanes 2
            out[2 + odd] = _mm512_shuffle_i64x2(ef, gh, 0x88);  // lanes 1
            out[6 + odd] = _mm512_shuffle_i64x2(ef, gh, 0xDD);  // lanes 3
        }
    }

    static uint32_t nonzero_lanes(reg a) { return _mm512_test_epi64_mask(a, a); }
    static bool all_ones(reg a) { return _mm512_cmpneq_epi64_mask(a, _mm512_set1_epi64(-1)) == 0; }
};

// Zen 4 takes 1.9 cycles for a sum and the majority that waits for it, 1.34 for two that do not
// wait and a copy, which costs a place in the front end and nothing else.
struct Avx512Amd : Avx512 {
    static void full_add(reg a, reg b, reg c, reg& sum, reg& carry) {
        carry = majority(a, b, c);
        sum = _mm512_ternarylogic_epi64(a, b, c, 0x96);
    }
};

constexpr int kAddsPerWord = 46;  // an add is one cycle, and 92 loads take two ports 46

template <class V>
constexpr Kernels with_vpopcntdq(int adds_per_word) {
    return {"avx512_vpopcntdq",
            3,
            V::lanes,
            rows_vpopcntdq,
            Fold<V>::full_adds,
            adds_per_word,
            Fold<V>::make_planes,
            Fold<V>::make_query,
            Fold<V>::fold,
            Fold<V>::make_columns,
            match_vpopcntdq,
            Fold<V>::nearest,
            distances_vpopcntdq,
            kth_smallest_plain,
            select_avx512};
}

}  // namespace

const Kernels kAvx512{"avx512",
                      2,
                      Avx512::lanes,
                      rows_avx512<NibbleCount>,
                      Fold<Avx512>::full_adds,
                      kAddsPerWord,
                      Fold<Avx512>::make_planes,
                      Fold<Avx512>::make_query,
                      Fold<Avx512>::fold,
                      nullptr,
                      nullptr,
                      Fold<Avx512>::nearest,
                      distances_avx512<NibbleCount>,
                      kth_smallest_plain,
                      select_avx512};

// Planes as above; rows, and so lone queries over clusters, 5 to 20 % faster (a Xeon with L3 of 480
// MB, 2026-11-25), over one long run of codes as fast as memory either way.
const Kernels kAvx512Vpopcntdq = with_vpopcntdq<Avx512>(kAddsPerWord);

// Here it is the adders that bound a fold: one is 1.34 cycles, and loads are one a cycle.
const Kernels kAvx512VpopcntdqAmd = with_vpopcntdq<Avx512Amd>(42);

}  // namespace dmih::simd
