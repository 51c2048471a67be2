// arch: sm_100 sm_120
//
// What tensor cores can do by mma.sync where they have no 1-bit products: a bare loop of products
// of bytes, of fragments in registers.
//
//   a step of a warp   kChains products of 16 x 8 x 32 bytes, each after its last; nothing else
//   limit              tensor cores
//
// Derived for an RTX 5090: a product every 16 clocks and quarter of a multiprocessor, 8 pairs of
// 128 bits a clock and multiprocessor, 3.3e12/s. Not measured.
#include "mma.cuh"
#include "sums.cuh"

namespace {

constexpr int kChains = 8;

}  // namespace

// Lane l's fragments are mixed(l), mixed(32 + l), ...: four of A, two of B. Adds the sums of all
// steps of all chains, all elements, to sum[0], modulo 2^64. Whole warps.
extern "C" __global__ void __launch_bounds__(256) imma_rate(int steps, u64* __restrict__ sum) {
    const u32 lane = threadIdx.x % 32;
    MmaFragments f;
#pragma unroll
    for (u32 i = 0; i < 4; i++) f.a[i] = mixed(32 * i + lane);
#pragma unroll
    for (u32 i = 0; i < 2; i++) f.b[i] = mixed(32 * (4 + i) + lane);
    int d[kChains][4] = {};
    for (int step = 0; step < steps; step++) {
#pragma unroll
        for (int j = 0; j < kChains; j++) mma_bytes(f, d[j][0], d[j][1], d[j][2], d[j][3]);
    }
    u64 mine = 0;
#pragma unroll
    for (int j = 0; j < kChains; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) mine += static_cast<u64>(i64{d[j][i]});
    add_to(sum, mine);
}
