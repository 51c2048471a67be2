// The collector of k-NN scans: counts and keeps what is within a bound, which falls.
#pragma once

#include "found.cuh"

struct Nearest {
    Found found;
    Lists lists;
    u32 k;

    // By __ldcg: other SMs change it.
    __device__ __forceinline__ int bound_of(u32 query) const { return __ldcg(&found.bound[query]); }
    __device__ __forceinline__ void add(u32 query, int distance, u32 slot) const {
        const u32 weight = lists.weight(slot);
        if (weight == 0) return;
        atomicAdd(&found.hist_of(query)[distance], weight);
        found.keep(query, atomicAdd(&found.count[query], 1u), distance, slot);
    }
    // By a whole warp.
    __device__ __forceinline__ void tighten(u32 query) const {
        // One lane's look: the bound may change between two.
        const int most = __shfl_sync(~0u, bound_of(query), 0);
        const Kth kth = found.kth(query, most, k);
        if (threadIdx.x % 32 == 0) atomicMin(&found.bound[query], kth.distance);
    }
};
