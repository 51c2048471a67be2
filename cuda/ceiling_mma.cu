// arch: sm_80 sm_86 sm_89 sm_90
//
// What tensor cores can do by mma.sync: a bare loop of 1-bit products, of fragments in registers.
//
//   a step of a warp   kChains products of 16 x 8 x 256 bits, each after its last; nothing else
//   limit              tensor cores
//
// Derived for an A100: a product every 8 clocks and quarter of a multiprocessor, 64 pairs of 256
// bits a clock and multiprocessor, 9.7e12/s. Not measured.
#include "mma.cuh"
#include "sums.cuh"

namespace {

constexpr int kChains = 8;

}  // namespace

// Lane l's fragments are mixed(l), mixed(32 + l), ...: four of A, two of B. Adds the counts of all
// steps of all chains, all elements, to sum[0]. Whole warps.
extern "C" __global__ void __launch_bounds__(256) mma_rate(int steps, u64* __restrict__ sum) {
    const u32 lane = threadIdx.x % 32;
    MmaFragments f;
#pragma unroll
    for (u32 i = 0; i < 4; i++) f.a[i] = mixed(32 * i + lane);
#pragma unroll
    for (u32 i = 0; i < 2; i++) f.b[i] = mixed(32 * (4 + i) + lane);
    int d[kChains][4] = {};
    for (int step = 0; step < steps; step++) {
#pragma unroll
        for (int j = 0; j < kChains; j++) mma_and_popc(f, d[j][0], d[j][1], d[j][2], d[j][3]);
    }
    u64 mine = 0;
#pragma unroll
    for (int j = 0; j < kChains; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) mine += static_cast<u32>(d[j][i]);
    add_to(sum, mine);
}
