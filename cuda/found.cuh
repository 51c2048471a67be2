// What a k-NN search has found so far, for each query of a batch.
//
// Distances are integers from 0 to d, so d + 1 counters tell the k-th distance exactly, for any k:
// no heap, no limit on k. While a search runs, the k-th distance of what was found is an upper
// bound of the final one: codes beyond it are neither counted nor kept. Whatever lies within the
// final k-th distance was within the bound at any time, so it has been counted, and kept while
// there was room. Where room was short (count > capacity) the counters are right all the same, and
// exact.cu finds the codes again.
#pragma once

#include "lists.cuh"
#include "warp.cuh"

struct Kth {
    int distance;  // the k-th distance
    u32 below;     // how many are nearer
    u32 at;        // how many are as far
};

// The k-th distance by the counters of the distances [0, most], or `most` if there are fewer than
// k. A whole warp takes part, with the same `most`. count(distance) reads a counter; while counters
// grow, the k-th distance is an upper bound.
template <class Count>
__device__ __forceinline__ Kth kth_distance(int most, u32 k, Count count) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    u32 below = 0;
    for (int base = 0;; base += 32) {
        const u32 here = base + lane <= most ? count(base + lane) : 0;
        const u32 up_to = inclusive_sum(here);
        const u32 reached = __ballot_sync(~0u, below + up_to >= k);
        if (reached != 0 || base + 32 > most) {
            const int at = reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : most - base;
            const u32 there = __shfl_sync(~0u, here, at);
            return {base + at, below + __shfl_sync(~0u, up_to, at) - there, there};
        }
        below += __shfl_sync(~0u, up_to, 31);
    }
}

struct Found {
    u32* hist;     // (nq, d + 1): ids found at each distance up to the bound
    int* bound;    // (nq): the k-th distance so far
    u32* count;    // (nq): slots found; the first `capacity` of them are in `entries`
    u64* entries;  // (nq, capacity): distance << 32 | slot
    int d;
    u32 capacity;

    __device__ __forceinline__ u32* hist_of(u32 query) const {
        return hist + u64{query} * static_cast<u32>(d + 1);
    }
    // By a whole warp. Read by __ldcg: other SMs may be counting.
    __device__ __forceinline__ Kth kth(u32 query, int most, u32 k) const {
        const u32* const counters = hist_of(query);
        return kth_distance(most, k, [&](int distance) { return __ldcg(&counters[distance]); });
    }
    __device__ __forceinline__ void keep(u32 query, u32 place, int distance, u32 slot) const {
        if (place < capacity)
            entries[u64{query} * capacity + place] = u64{static_cast<u32>(distance)} << 32 | slot;
    }
};

#define FOUND_PARAMETERS                                                      \
    u32 *__restrict__ hist, int *__restrict__ bound, u32 *__restrict__ count, \
        u64 *__restrict__ entries, int d, u32 capacity
#define FOUND                                    \
    Found {                                      \
        hist, bound, count, entries, d, capacity \
    }
