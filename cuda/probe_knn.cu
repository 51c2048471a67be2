// compile: kWords=0,1,2,4,8
//
// k-NN by multi-index hashing: probe.cuh until the k-th distance is below what has been seen.
//
// Derived on an H200, 25e9 random sectors/s: with b entries looked at per query, 25e9 / b
// queries/s. A warp waits for memory three times in a row at each 32 entries, so it takes thousands
// of them (132 SMs * 64) to reach that; a lone query is bound by about 0.6 us for each wait. Not
// measured.
#include "found.cuh"
#include "probe.cuh"

// For the queries [0, nq), of which some codes may be known (a tail that was scanned, up to
// distance n_counters - 1). A query that would look at more than `allowed` items, that has more
// than capacity entries, or that is not done after n_steps, is appended to todo. The others get
// kth, below and at, as by knn_finish. all_seen: after n_steps every code has been seen, whatever
// its distance. Dynamic shared memory: 4 * n_counters bytes a warp. n_counters: distances that
// matter, d + 1 with all_seen, otherwise n_steps.
extern "C" __global__ void __launch_bounds__(256, 4)
    probe_knn(TABLES_PARAMETERS, const u64* __restrict__ queries, u32 nq, u32 k, int n_counters,
              int all_seen, u32 allowed, int* __restrict__ kth, u32* __restrict__ below,
              u32* __restrict__ at, u32* __restrict__ todo, u32* __restrict__ n_todo,
              FOUND_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ u32 shared_counters[];
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    u32* const counters = shared_counters + threadIdx.x / 32 * n_counters;
    const Tables tables = TABLES;
    const Found found = FOUND;
    const Lists lists = LISTS;
    const u32 number = blockIdx.x * warps + threadIdx.x / 32;
    for (u32 q = number; q < nq; q += gridDim.x * warps) {
        const u64* query = row_at(queries, q, words);
        for (int c = static_cast<int>(lane); c < n_counters; c += 32)
            counters[c] = found.hist_of(q)[c];
        __syncwarp();
        u32 entries_found = count[q], items = allowed;
        Kth nearest = {};
        bool done = false, going = entries_found <= capacity;
        for (int s = 0; going; s++) {
            // s steps done: every code at a distance < s has been seen.
            nearest =
                kth_distance(n_counters - 1, k, [&](int distance) { return counters[distance]; });
            __syncwarp();  // shuffles and votes do not order what was read before what is counted
            const bool enough = nearest.below + nearest.at >= k;
            done = (enough && nearest.distance < s) || (all_seen && s == n_steps);
            if (done || s == n_steps) break;
            // Ties at the k-th distance matter, too.
            const int bound_now = nearest.distance;
            going = probe_ring(
                tables, s, query, items, [&] { return bound_now; },
                [&](bool near, int distance, u32 slot) {
                    const u32 weight = near ? lists.weight(slot) : 0;
                    const u32 hits = __ballot_sync(~0u, weight != 0);
                    if (weight != 0) {
                        atomicAdd(&counters[distance], weight);
                        found.keep(q, entries_found + __popc(hits & ((1u << lane) - 1)), distance,
                                   slot);
                    }
                    entries_found += __popc(hits);
                });
            __syncwarp();
            going = going && entries_found <= capacity;
        }
        if (lane == 0) {
            if (done) {
                kth[q] = nearest.distance;
                below[q] = nearest.below;
                at[q] = nearest.at;
                count[q] = entries_found;
            } else {
                todo[atomicAdd(n_todo, 1u)] = q;
            }
        }
    }
}
