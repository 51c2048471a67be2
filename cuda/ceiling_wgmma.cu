// arch: sm_90a
//
// What tensor cores can do by wgmma: a bare loop of 1-bit products, of operands in shared memory.
//
//   a step of a warpgroup   one product of 64 x 256 x 256 bits; 10 KiB of shared memory read
//   limit                   tensor cores, or shared memory: 10 KiB / 128 bytes a clock, 80 clocks
//
// Published for a 1-bit product on an H200: 9.6e15 operations/s, 207 clocks a step, 1.9e13 pairs of
// 256 bits a second; nominally 128 clocks. Not measured here.
#include "sums.cuh"
#include "wgmma.cuh"

namespace {

constexpr u32 kRowsA = 64, kRowsB = 256;

}  // namespace

// Of 16-byte units the i-th one's 32-bit words are mixed(4 i), mixed(4 i + 1), ...: first A's two
// planes of kRowsA units, then B's of kRowsB. Adds the counts of all steps, all elements, of all
// warpgroups to sum[0]. 256 threads, 32 * (kRowsA + kRowsB) bytes of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256) wgmma_rate(int steps, u64* __restrict__ sum) {
    extern __shared__ __align__(128) u32 operands[];
    for (u32 i = threadIdx.x; i < 8 * (kRowsA + kRowsB); i += 256) operands[i] = mixed(i);
    fence_proxy_async();
    __syncthreads();
    const u64 a = operand(operands, 16 * kRowsA, 128);
    const u64 b = operand(operands + 8 * kRowsA, 16 * kRowsB, 128);
    int d[kAccumulators] = {};
    wgmma_fence();
    for (int step = 0; step < steps; step++) {
        wgmma(d, a, b, 1);
        wgmma_commit();
    }
    wgmma_wait(d);
    u64 mine = 0;
#pragma unroll
    for (int i = 0; i < kAccumulators; i++) mine += static_cast<u32>(d[i]);
    add_to(sum, mine);
}
