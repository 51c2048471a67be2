// What range search has found: one key for each answer, query << 46 | id << 14 | distance << 1 |
// source, so that sorting the keys orders answers by query and id. `source` tells the answers of a
// query that was probed from those of a scan after probing it was given up. Keys are kept while
// there is room; `total` counts all.
#pragma once

#include "lists.cuh"
#include "rows.cuh"

struct Hits {
    u64 *keys, *total;
    u64 capacity;
    u32 source;
    Lists lists;

    __device__ __forceinline__ void add(u32 query, int distance, u32 slot) const {
        const u32 first = lists.first(slot), last = lists.last(slot);
        const u32 ids = lists.allowed(first, last);
        if (ids == 0) return;
        const u64 at = atomicAdd(total, u64{ids});
        const u64 key = u64{query} << 46 | static_cast<u32>(distance) << 1 | source;
        for (u32 j = 0; j < ids && at + j < capacity; j++)
            keys[at + j] = key | u64{lists.id(lists.allowed_place(first, last, j))} << 14;
    }
};

#define HITS_PARAMETERS u64 *__restrict__ keys, u64 *__restrict__ total, u64 capacity, u32 source
#define HITS                                 \
    Hits {                                   \
        keys, total, capacity, source, LISTS \
    }
