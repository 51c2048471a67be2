// compile: kWords=0,1,2,4,8
//
// Range search by multi-index hashing: as many steps of probe.cuh as the radius has bits show every
// code at a smaller distance. Costs as probe_knn.cu's.
#include "hits.cuh"
#include "probe.cuh"

// For the queries [0, nq), all codes at a distance of at most `most`. n_steps is most + 1, or all
// there are if they show every code. A query that would look at more than `allowed` items is
// appended to todo; what it found so far stays among the keys.
extern "C" __global__ void __launch_bounds__(256, 4)
    probe_range(TABLES_PARAMETERS, const u64* __restrict__ queries, u32 nq, int most, u32 allowed,
                u32* __restrict__ todo, u32* __restrict__ n_todo, HITS_PARAMETERS,
                LISTS_PARAMETERS) {
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const Tables tables = TABLES;
    const Hits hits = HITS;
    for (u32 q = blockIdx.x * warps + threadIdx.x / 32; q < nq; q += gridDim.x * warps) {
        const u64* query = row_at(queries, q, words);
        u32 items = allowed;
        bool going = true;
        for (int s = 0; going && s < n_steps; s++)
            going = probe_ring(
                tables, s, query, items, [&] { return most; },
                [&](bool near, int distance, u32 slot) {
                    if (near) hits.add(q, distance, slot);
                });
        if (!going && lane == 0) todo[atomicAdd(n_todo, 1u)] = q;
    }
}
