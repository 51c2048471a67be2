// What happens to a query between the passes over the codes. All of it is d + 1 counters and one
// thread or warp per query: nothing beside a scan.
#include "found.cuh"

// Nothing found yet, for the queries todo[0 .. *n_todo): codes up to `most` are of interest. A warp
// each.
extern "C" __global__ void __launch_bounds__(256)
    knn_begin(const u32* __restrict__ todo, const u32* __restrict__ n_todo, int most,
              FOUND_PARAMETERS) {
    const Found found = FOUND;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 i = (blockIdx.x * blockDim.x + threadIdx.x) / 32; i < *n_todo; i += warps) {
        const u32 query = todo[i];
        for (int c = threadIdx.x % 32; c <= d; c += 32) found.hist_of(query)[c] = 0;
        if (threadIdx.x % 32 == 0) {
            bound[query] = most;
            count[query] = 0;
        }
    }
}

// The k-th distance of a sample is a bound; its counters are cleared. A warp per query.
extern "C" __global__ void __launch_bounds__(256)
    knn_first_bounds(const u32* __restrict__ todo, const u32* __restrict__ n_todo, u32 k,
                     FOUND_PARAMETERS) {
    const Found found = FOUND;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 i = (blockIdx.x * blockDim.x + threadIdx.x) / 32; i < *n_todo; i += warps) {
        const u32 query = todo[i];
        const Kth kth = found.kth(query, d, k);
        __syncwarp();  // the compiler does not know that __ldcg reads what is cleared now
        for (int c = threadIdx.x % 32; c <= d; c += 32) found.hist_of(query)[c] = 0;
        if (threadIdx.x % 32 == 0) bound[query] = kth.distance;
    }
}

// When all has been seen: the k-th distance, how many are nearer and how many as far. Queries for
// which room was short are marked and listed for exact.cu. A warp per query.
extern "C" __global__ void __launch_bounds__(256)
    knn_finish(const u32* __restrict__ todo, const u32* __restrict__ n_todo, u32 k,
               FOUND_PARAMETERS, int* __restrict__ kth, u32* __restrict__ below,
               u32* __restrict__ at, u32* __restrict__ is_short, u32* __restrict__ short_of_room,
               u32* __restrict__ n_short) {
    const Found found = FOUND;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 i = (blockIdx.x * blockDim.x + threadIdx.x) / 32; i < *n_todo; i += warps) {
        const u32 query = todo[i];
        const Kth last = found.kth(query, bound[query], k);
        if (threadIdx.x % 32 != 0) continue;
        kth[query] = last.distance;
        below[query] = last.below;
        at[query] = last.at;
        if (count[query] > capacity) {
            is_short[query] = 1;
            short_of_room[atomicAdd(n_short, 1u)] = query;
        }
    }
}
