// arch: sm_80 sm_86 sm_89 sm_90
// compile: kWords=0,1,2 kInt8=0,1
//
// Accumulators of the scans by warp, which these hold against bounds and do not show: one that is
// too small would be compared again by words, and cost time only.
#include "../../../cuda/scan_imma.cuh"
#include "../../../cuda/scan_mma.cuh"

// out (16, 8): of 16 queries and 8 rows, over kScale. A warp.
extern "C" __global__ void __launch_bounds__(32)
    accumulators(const u64* __restrict__ queries, const u64* __restrict__ rows, int words,
                 const u32* __restrict__ todo, int* __restrict__ out) {
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4;
    const Work work{rows, 0, 8, words, queries, todo, todo};
    const Pair pair({todo, 16, 0, 0}, g);
    int d[1][4];
#if kInt8
    using Product = Bytes;
#else
    using Product = Bits;
#endif
    Start<Product>(work, pair).put(d[0]);
    for (int step = 0; step < steps_of(words); step++)
        add_fragments<Product>(work, pair, 0, step, d);
#pragma unroll
    for (int i = 0; i < 4; i++)
        out[(g + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[0][i] / Product::kScale;
}
