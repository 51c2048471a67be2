// Which ids a slot stands for. Equal codes share a slot: the slots [0, listed_slots) stand for the
// ids at the places [begin[slot], begin[slot + 1]) of `ids`, ascending, listed_ids of them in all.
// Every slot after these stands for one id, in order: the tail of recent adds; or all slots, where
// equal codes are rare and there are no lists.
//
// Under a filter rank[p] is how many of the places below p have an allowed id, so that any run of
// places is counted, and its j-th allowed one is found, without looking at what lies between.
#pragma once

#include "types.cuh"

struct Lists {
    const u32 *begin, *ids, *rank;
    u32 listed_slots, listed_ids;
    bool filtered;

    __device__ __forceinline__ u32 first(u32 slot) const {
        return slot < listed_slots ? begin[slot] : listed_ids + (slot - listed_slots);
    }
    __device__ __forceinline__ u32 last(u32 slot) const {
        return slot < listed_slots ? begin[slot + 1] : listed_ids + (slot - listed_slots) + 1;
    }
    __device__ __forceinline__ u32 id(u32 place) const {
        return place < listed_ids ? ids[place] : place;
    }
    // Allowed ones of the places [from, to).
    __device__ __forceinline__ u32 allowed(u32 from, u32 to) const {
        return filtered ? rank[to] - rank[from] : to - from;
    }
    __device__ __forceinline__ u32 weight(u32 slot) const {
        return listed_slots == 0 && !filtered ? 1 : allowed(first(slot), last(slot));
    }
    // The allowed place in [from, to) before which there are j others.
    __device__ u32 allowed_place(u32 from, u32 to, u32 j) const {
        if (!filtered) return from + j;
        const u32 wanted = rank[from] + j;
        while (from + 1 < to) {  // rank[from] <= wanted < rank[to]
            const u32 middle = from + (to - from) / 2;
            if (rank[middle] <= wanted) {
                from = middle;
            } else {
                to = middle;
            }
        }
        return from;
    }
    // The first place in [from, to) whose id is above `most`, or `to`.
    __device__ u32 place_above(u32 from, u32 to, u32 most) const {
        while (from < to) {
            const u32 middle = from + (to - from) / 2;
            if (id(middle) <= most) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        return from;
    }
};

// As kernels are given them: structs do not pass.
#define LISTS_PARAMETERS                                                  \
    const u32 *__restrict__ list_begin, const u32 *__restrict__ list_ids, \
        const u32 *__restrict__ list_rank, u32 listed_slots, u32 listed_ids, int filtered
#define LISTS Lists{list_begin, list_ids, list_rank, listed_slots, listed_ids, filtered != 0}
