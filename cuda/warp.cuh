// What the lanes of a warp do together. All 32 take part.
#pragma once

#include "types.cuh"

__device__ __forceinline__ u32 inclusive_sum(u32 value) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        const u32 before = __shfl_up_sync(~0u, value, step);
        if (lane >= step) value += before;
    }
    return value;
}
