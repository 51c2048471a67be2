// The row kernels of avx512_vpopcntdq.cpp for processors that have the rest of AVX-512: VPOPCNTQ is
// replaced by a plain function. Tests the kernels' logic, not the instruction.
#include <immintrin.h>

#include <cstdint>

namespace {

__m512i emulated_popcount(__m512i x) {
    uint64_t words[8];
    _mm512_storeu_si512(words, x);
    for (uint64_t& word : words) word = static_cast<uint64_t>(__builtin_popcountll(word));
    return _mm512_loadu_si512(words);
}

}  // namespace

#define _mm512_popcnt_epi64 emulated_popcount
#define rows_vpopcntdq rows_emulated
#define distances_vpopcntdq distances_emulated
#define match_vpopcntdq match_emulated
#include "simd/avx512_vpopcntdq.cpp"
