// What the kernels that measure limits share.
#pragma once

#include "types.cuh"

// sum[0] += mine of each thread, modulo 2^64; an atomic a warp.
__device__ __forceinline__ void add_to(u64* sum, u64 mine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        mine += __shfl_xor_sync(0xFFFFFFFFu, mine, distance);
    }
    if (threadIdx.x % 32 == 0) atomicAdd(sum, mine);
}

// All bits of x decide about each bit of the result: the finaliser of MurmurHash3, a bijection.
__device__ __forceinline__ u32 mixed(u32 x) {
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    return x ^ (x >> 16);
}
