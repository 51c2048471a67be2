// compile: kFault=0,1,2,3,4,5,6,7,8,9
//
// One product by a warpgroup of what another one writes, and what can be wrong with that: kFault.
#include "../../../cuda/wgmma.cuh"

// out[t][i]: the accumulators of thread t. a is (2, 64, 2), b (2, 256, 2): planes, rows, words.
extern "C" __global__ void product(const u64* __restrict__ a, const u64* __restrict__ b,
                                   int* __restrict__ out) {
    extern __shared__ __align__(16) u64 memory[];
    __shared__ u64 full[1];
    __shared__ u64 empty[1];
    u64* const b_there = memory + 2 * 64 * 2;
    if (threadIdx.x == 0) {
        mbarrier_init(full, 4);
        if (kFault != 9) mbarrier_init(empty, 4);
    }
    if (kFault != 8) __syncthreads();
    if (threadIdx.x < 128) {
        for (u32 i = threadIdx.x; i < 2 * 64 * 2; i += 128) memory[i] = a[i];
        for (u32 i = threadIdx.x; i < 2 * 256 * 2; i += 128) b_there[i] = b[i];
        if (kFault != 1) fence_proxy_async();
        __syncwarp();
        if (threadIdx.x % 32 == 0 && kFault != 2) mbarrier_arrive(full);
        if (kFault != 6) mbarrier_wait(empty, 0);
        memory[threadIdx.x] = 0;
        return;
    }
    mbarrier_wait(full, 0);
    int d[kAccumulators];
    if (kFault != 4) wgmma_fence();
    wgmma(d, operand(memory, 64 * 16, 128),
          operand(b_there + (kFault == 7 ? 2 * 256 : 0), 256 * 16, 128), 0);
    wgmma_commit();
    if (kFault != 3 && kFault != 5) wgmma_wait(d);
    for (int i = 0; i < kAccumulators; i++)
        out[(threadIdx.x - 128) * kAccumulators + static_cast<u32>(i)] = d[i];
    if (kFault == 5) wgmma_wait(d);
    if (threadIdx.x % 32 == 0) mbarrier_arrive(empty);
}
