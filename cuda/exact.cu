// compile: kWords=0,1,2,4,8
//
// The answers of k-NN queries that found more than there was room to keep: many codes at the very
// k-th distance, of which the smallest ids win. The k-th distance is known (knn_finish), so a
// second look at all codes, in the order of their ids, takes exactly those that belong to the
// answer, at most k of them. Two passes: ties are counted by chunks of ids, then taken, each chunk
// knowing how many came before it.
//
// A block per (query, chunk), ids in order; a row is read by 2 passes for each of these queries, at
// 8 * words bytes from wherever its slot is. Rare: 32 * k and more codes would have to be tied, and
// equal codes are one.
#include "found.cuh"
#include "rows.cuh"

namespace {

constexpr u32 kThreads = 256;

struct Ids {
    const u64* rows;
    const u32* slot_of;  // of the first listed_ids ids
    int words;
    u32 n;
    u32 chunk_ids;  // ids of a chunk
    Lists lists;

    // Calls visit(id, distance) for the allowed ids of a chunk, kThreads at a time; distance is -1
    // for threads without one. All threads of the block take part.
    template <class Visit>
    __device__ __forceinline__ void each(u32 chunk, const u64* query, Visit visit) const {
        const u64 begin = u64{chunk} * chunk_ids, end = min(begin + chunk_ids, u64{n});
        for (u64 base = begin; base < end; base += kThreads) {
            const u64 id = base + threadIdx.x;
            int distance = -1;
            if (id < end && allowed(static_cast<u32>(id))) {
                const u32 slot = id < lists.listed_ids
                                     ? slot_of[id]
                                     : lists.listed_slots + static_cast<u32>(id - lists.listed_ids);
                distance = hamming(row_at(rows, slot, words), query, words);
            }
            visit(static_cast<u32>(id), distance);
        }
    }
    // Its place in the list is found by bisection.
    __device__ __forceinline__ bool allowed(u32 id) const {
        if (!lists.filtered) return true;
        u32 place = id;
        if (id < lists.listed_ids) {
            const u32 slot = slot_of[id], first = lists.first(slot);
            place = lists.place_above(first, lists.last(slot), id) - 1;
        }
        return lists.allowed(place, place + 1) != 0;
    }
};

}  // namespace

#define IDS_PARAMETERS                                                                         \
    const u64 *__restrict__ rows, const u32 *__restrict__ slot_of, int words, u32 n,           \
        u32 chunk_ids, const u64 *__restrict__ queries, const u32 *__restrict__ short_of_room, \
        const u32 *__restrict__ n_short
#define IDS                                       \
    Ids {                                         \
        rows, slot_of, words, n, chunk_ids, LISTS \
    }

// ties[f][chunk]: allowed ids at the k-th distance, for the f-th query that was short of room.
// Grid (any, chunks).
extern "C" __global__ void __launch_bounds__(256)
    exact_ties(IDS_PARAMETERS, const int* __restrict__ kth, u32* __restrict__ ties,
               LISTS_PARAMETERS) {
    __shared__ u32 sum;
    for (u32 f = blockIdx.x; f < *n_short; f += gridDim.x) {
        const u32 query = short_of_room[f];
        if (threadIdx.x == 0) sum = 0;
        __syncthreads();
        u32 mine = 0;
        IDS.each(blockIdx.y, row_at(queries, query, words),
                 [&](u32, int distance) { mine += distance == kth[query]; });
        atomicAdd(&sum, mine);
        __syncthreads();
        if (threadIdx.x == 0) ties[u64{f} * gridDim.y + blockIdx.y] = sum;
    }
}

// The ids themselves: entries[query] holds distance << 32 | id, nearer ones first, in any order,
// then min(at, k - below) ties, and count says how many. `taken` is zero for every f. Grid (any,
// chunks).
extern "C" __global__ void __launch_bounds__(256)
    exact_entries(IDS_PARAMETERS, u32 k, const int* __restrict__ kth, const u32* __restrict__ below,
                  const u32* __restrict__ at, const u32* __restrict__ ties, u32* __restrict__ taken,
                  FOUND_PARAMETERS, LISTS_PARAMETERS) {
    __shared__ u32 in_warp[kThreads / 32];
    __shared__ u32 before_chunk;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Found found = FOUND;
    for (u32 f = blockIdx.x; f < *n_short; f += gridDim.x) {
        const u32 query = short_of_room[f];
        const u32 nearer = below[query], wanted = min(at[query], k - nearer);
        if (threadIdx.x == 0) before_chunk = 0;
        __syncthreads();
        u32 mine = 0;
        for (u32 chunk = threadIdx.x; chunk < blockIdx.y; chunk += kThreads)
            mine += ties[u64{f} * gridDim.y + chunk];
        atomicAdd(&before_chunk, mine);
        __syncthreads();
        u32 before = before_chunk;
        IDS.each(blockIdx.y, row_at(queries, query, words), [&](u32 id, int distance) {
            if (distance >= 0 && distance < kth[query])
                found.keep(query, atomicAdd(&taken[f], 1u), distance, id);
            const u32 tied = __ballot_sync(~0u, distance == kth[query]);
            if (lane == 0) in_warp[warp] = __popc(tied);
            __syncthreads();
            u32 place = before + __popc(tied & ((1u << lane) - 1));
            for (u32 w = 0; w < kThreads / 32; w++) {
                if (w < warp) place += in_warp[w];
                before += in_warp[w];
            }
            if (distance == kth[query] && place < wanted)
                found.keep(query, nearer + place, distance, id);
            __syncthreads();
        });
        if (blockIdx.y == 0 && threadIdx.x == 0) count[query] = nearer + wanted;
        __syncthreads();  // all have read before_chunk, even of a chunk without ids
    }
}
