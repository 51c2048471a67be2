// Row kernels for AVX-512 with VPOPCNTDQ (Ice Lake, Zen 4). The rest of that level is in
// avx512.cpp.
#include "avx512_columns.hpp"
#include "avx512_rows.hpp"

namespace dmih::simd {
namespace {

struct WordCount {
    static __m512i counts(__m512i x) { return _mm512_popcnt_epi64(x); }
    static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi64(a, b); }
    static __m512i total(__m512i x) { return x; }
};

}  // namespace

int rows_vpopcntdq(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                   uint32_t* index, uint16_t* distance) {
    return rows_avx512<WordCount>(codes, n, words, query, bound, index, distance);
}

void distances_vpopcntdq(const uint64_t* codes, int n, int words, const uint64_t* query,
                         uint16_t* out) {
    distances_avx512<WordCount>(codes, n, words, query, out);
}

int match_vpopcntdq(const uint64_t* columns, int words, const uint64_t* const* queries,
                    const int32_t* bound, const uint32_t* list, int n_list, BlockHit* hits) {
    return match_columns(columns, words, queries, bound, list, n_list, hits);
}

}  // namespace dmih::simd
