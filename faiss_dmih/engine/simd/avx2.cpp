// AVX2: 256 codes per plane, a full adder is five operations on three ports. See fold.hpp.
#include <immintrin.h>

#include "avx2_rows.hpp"
#include "fold.hpp"

namespace dmih::simd {
namespace {

struct Avx2 : Plain<Avx2, 4> {
    using reg = __m256i;
    static constexpr int lanes = 4;
    static const reg* at(const void* p) { return static_cast<const reg*>(p); }
    static reg load(const uint64_t* p) { return _mm256_load_si256(at(p)); }
    static reg load_bytes(const char* p) { return _mm256_load_si256(at(p)); }
    static reg load_unaligned(const uint64_t* p) { return _mm256_loadu_si256(at(p)); }
    static void store(uint64_t* p, reg x) { _mm256_store_si256(reinterpret_cast<reg*>(p), x); }
    static void store_unaligned(uint64_t* p, reg x) {
        _mm256_storeu_si256(reinterpret_cast<reg*>(p), x);
    }
    static reg broadcast(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
    static reg and_(reg a, reg b) { return _mm256_and_si256(a, b); }
    static reg or_(reg a, reg b) { return _mm256_or_si256(a, b); }
    static reg xor_(reg a, reg b) { return _mm256_xor_si256(a, b); }
    template <int N>
    static reg shr(reg a) {
        return _mm256_srli_epi64(a, N);
    }
    template <int N>
    static reg shl(reg a) {
        return _mm256_slli_epi64(a, N);
    }
    static reg majority(reg a, reg b, reg c) { return or_(and_(a, b), and_(xor_(a, b), c)); }
    static void full_add(reg a, reg b, reg c, reg& sum, reg& carry) {
        const reg half = xor_(a, b);
        carry = or_(and_(a, b), and_(half, c));
        sum = xor_(half, c);
    }
    static uint32_t nonzero_lanes(reg a) {
        const reg zero = _mm256_cmpeq_epi64(a, _mm256_setzero_si256());
        return 0xFu ^ static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(zero)));
    }
    static bool all_ones(reg a) { return _mm256_testc_si256(a, _mm256_set1_epi64x(-1)) != 0; }
};

}  // namespace

const Kernels kAvx2{"avx2",
                    1,
                    Avx2::lanes,
                    rows_avx2,
                    Fold<Avx2>::full_adds,
                    42,
                    Fold<Avx2>::make_planes,
                    Fold<Avx2>::make_query,
                    Fold<Avx2>::fold,
                    nullptr,
                    nullptr,
                    Fold<Avx2>::nearest,
                    distances_avx2,
                    kth_smallest_plain,
                    select_avx2};

}  // namespace dmih::simd
