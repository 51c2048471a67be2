// The block kernel for some queries, AVX-512 with VPOPCNTDQ: "match".
//
//   Layout   eight codes after eight, of each eight word after word: one register each.
//   Cost     per word and eight codes a load with XOR, a VPOPCNTQ and an addition; per eight codes
//            a comparison and a byte of the answer. 512 codes of 256 bits: 768 operations, on Zen 4
//            four pipes of half a register each: 384 cycles (derived), 104 ns at 3.7 GHz. Planes
//            are folded in 85, but cost 1,620 to make, columns 390.
//
// docs/algorithm.md, section 3, has what was measured.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace dmih::simd {
namespace {

// near[r] says which of codes 8r .. 8r + 7 are within: as BlockHit has them.
inline void to_hit(const uint64_t* near, BlockHit& hit) {
    hit.lanes = 0;
    for (uint64_t& mask : hit.mask) mask = 0;
    for (int at = 0; at < 8; ++at)
        for (uint64_t left = near[at]; left != 0; left &= left - 1) {
            const int bit = __builtin_ctzll(left);
            hit.mask[bit % 8] |= uint64_t{1} << (8 * at + bit / 8);
            hit.lanes |= 1u << (bit % 8);
        }
}

// The counts of eight codes over `words` words, kWords if that is not 0.
template <int kWords>
inline __m512i count_eight(const uint64_t* codes, const uint64_t* query, int words) {
    const auto differ = [&](int w) {
        return _mm512_popcnt_epi64(_mm512_xor_si512(
            _mm512_load_si512(codes + w * 8), _mm512_set1_epi64(static_cast<long long>(query[w]))));
    };
    __m512i sum = differ(0);
    const int end = kWords > 0 ? kWords : words;
    for (int w = 1; w < end; ++w) sum = _mm512_add_epi64(sum, differ(w));
    return sum;
}

template <int kWords>
int match_words(const uint64_t* columns, int words, const uint64_t* const* queries,
                const int32_t* bound, const uint32_t* list, int n_list, BlockHit* hits) {
    const int end = kWords > 0 ? kWords : words;
    int found = 0;
    for (int i = 0; i < n_list; ++i) {
        const uint32_t q = list[i];
        if (bound[q] < 0) continue;
        uint64_t query[kWords > 0 ? kWords : 1];
        for (int w = 0; w < kWords; ++w) query[w] = queries[q][w];
        const uint64_t* const at = kWords > 0 ? query : queries[q];
        const __m512i most = _mm512_set1_epi64(bound[q]);
        uint64_t near[8], any = 0;
        for (int eight = 0; eight < 8; ++eight) {
            uint64_t byte[8];
            for (int r = 0; r < 8; ++r)
                byte[r] = _mm512_cmple_epi64_mask(
                    count_eight<kWords>(columns + (8 * eight + r) * 8 * end, at, words), most);
            near[eight] = byte[0] | byte[1] << 8 | byte[2] << 16 | byte[3] << 24 | byte[4] << 32 |
                          byte[5] << 40 | byte[6] << 48 | byte[7] << 56;
            any |= near[eight];
        }
        if (any == 0) continue;
        hits[found].query = q;
        to_hit(near, hits[found++]);
    }
    return found;
}

inline int match_columns(const uint64_t* columns, int words, const uint64_t* const* queries,
                         const int32_t* bound, const uint32_t* list, int n_list, BlockHit* hits) {
    switch (words) {
        case 1: return match_words<1>(columns, words, queries, bound, list, n_list, hits);
        case 2: return match_words<2>(columns, words, queries, bound, list, n_list, hits);
        case 3: return match_words<3>(columns, words, queries, bound, list, n_list, hits);
        case 4: return match_words<4>(columns, words, queries, bound, list, n_list, hits);
        case 8: return match_words<8>(columns, words, queries, bound, list, n_list, hits);
        default: return match_words<0>(columns, words, queries, bound, list, n_list, hits);
    }
}

}  // namespace
}  // namespace dmih::simd
