// AVX-512 (F, BW, VL, DQ): 512 codes per plane, a full adder is two VPTERNLOGQ. See fold.hpp.
#include <immintrin.h>

#include "avx512_rows.hpp"
#include "fold.hpp"

namespace dmih::simd {
namespace {

struct Avx512 {
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
    static uint32_t nonzero_lanes(reg a) { return _mm512_test_epi64_mask(a, a); }
    static bool all_ones(reg a) { return _mm512_cmpneq_epi64_mask(a, _mm512_set1_epi64(-1)) == 0; }
};

constexpr int kAddsPerWord = 46;  // an add is one cycle, and 92 loads take two ports 46

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
                      Fold<Avx512>::nearest,
                      distances_avx512<NibbleCount>,
                      kth_smallest_plain,
                      select_avx512};

// Planes as above; rows, and so lone queries over clusters, 5 to 20 % faster (a Xeon with L3 of 480
// MB, 2026-11-25), over one long run of codes as fast as memory either way.
const Kernels kAvx512Vpopcntdq{"avx512_vpopcntdq",
                               3,
                               Avx512::lanes,
                               rows_vpopcntdq,
                               Fold<Avx512>::full_adds,
                               kAddsPerWord,
                               Fold<Avx512>::make_planes,
                               Fold<Avx512>::make_query,
                               Fold<Avx512>::fold,
                               Fold<Avx512>::nearest,
                               distances_vpopcntdq,
                               kth_smallest_plain,
                               select_avx512};

}  // namespace dmih::simd
