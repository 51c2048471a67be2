// Multi-index hashing, a warp per query.
//
// Let rho_j be the radius to which table j has been probed (-1: not at all). A code that no table
// has shown differs from the query by more than rho_j in every substring j, hence by at least
// sum(rho_j + 1). So after s steps, each of which raises one rho_j by one, every code at a distance
// < s has been seen. The order of the steps is the same for all queries: the cheapest ring next, by
// what the tables hold (faiss_dmih/gpu/front.py). So rho_j before each step is a table, too.
//
// A code in ring rho_i of table i was met before exactly if for another table j its distance in
// substring j is at most rho_j: no set of visited codes is kept.
//
// The lanes look up 32 buckets at a time, then share out all their entries. An item is a bucket (a
// sector of `offsets`; flips of the lowest 3 bits share one) or an entry (8 to a sector of `slots`,
// and a sector of `rows` at random, which is what counts).
#pragma once

#include "lists.cuh"
#include "rows.cuh"
#include "warp.cuh"

struct Tables {
    const u64* rows;
    u32 slots;  // of them are in the tables
    int words;
    int n_tables;
    const int* first_bit;      // (n_tables)
    const int* bits;           // (n_tables)
    const i64* offsets_begin;  // (n_tables): where in `offsets` a table begins
    const u32* offsets;        // 2^bits + 1 for each table
    const u32* bucket_slots;   // (n_tables, slots)
    int n_steps;
    const int* step_table;   // (n_steps)
    const int* rho;          // (n_steps, n_tables): before the step
    const u32* masks;        // the bits that a ring flips
    const u32* masks_begin;  // (n_steps): where in `masks` the ring of the step begins
    const u32* masks_end;
};

#define TABLES_PARAMETERS                                                                      \
    const u64 *__restrict__ rows, u32 table_slots, int words, int n_tables,                    \
        const int *__restrict__ first_bit, const int *__restrict__ bits,                       \
        const i64 *__restrict__ offsets_begin, const u32 *__restrict__ offsets,                \
        const u32 *__restrict__ bucket_slots, int n_steps, const int *__restrict__ step_table, \
        const int *__restrict__ rho, const u32 *__restrict__ masks,                            \
        const u32 *__restrict__ masks_begin, const u32 *__restrict__ masks_end
#define TABLES                                                                                     \
    Tables {                                                                                       \
        rows, table_slots, words, n_tables, first_bit, bits, offsets_begin, offsets, bucket_slots, \
            n_steps, step_table, rho, masks, masks_begin, masks_end                                \
    }

__device__ __forceinline__ bool seen_before(const Tables& tables, int step, const u64* row,
                                            const u64* query) {
    const int* rho = tables.rho + step * tables.n_tables;
    for (int j = 0; j < tables.n_tables; j++) {
        if (rho[j] < 0 || j == tables.step_table[step]) continue;
        const u32 ours = substring(query, tables.first_bit[j], tables.bits[j]);
        const u32 theirs = substring(row, tables.first_bit[j], tables.bits[j]);
        if (__popc(ours ^ theirs) <= rho[j]) return true;
    }
    return false;
}

// One step: every code of its ring, at most once. collect(near, distance, slot) is called by all
// lanes together, near: this lane has a new code within bound(). items falls by what was looked at;
// false: it would have fallen below zero, and the ring is not complete.
template <class Bound, class Collect>
__device__ __forceinline__ bool probe_ring(const Tables& tables, int step, const u64* query,
                                           u32& items, Bound bound, Collect collect) {
    const u32 lane = threadIdx.x % 32;
    const int j = tables.step_table[step];
    const u32* offsets = tables.offsets + tables.offsets_begin[j];
    const u32* slots = tables.bucket_slots + u64{tables.slots} * static_cast<u32>(j);
    const u32 key = substring(query, tables.first_bit[j], tables.bits[j]);
    const u32 end = tables.masks_end[step];
    for (u32 base = tables.masks_begin[step]; base < end; base += 32) {
        u32 begin = 0, length = 0;
        if (base + lane < end) {
            const u32 at = key ^ tables.masks[base + lane];
            begin = offsets[at];
            length = offsets[at + 1] - begin;
        }
        // First each, then all: the sum could overflow.
        if (__any_sync(~0u, length > items)) return false;
        const u32 up_to = inclusive_sum(length);
        const u32 total = __shfl_sync(~0u, up_to, 31);
        const u32 cost = total + min(end - base, 32u);
        if (cost > items) return false;
        items -= cost;
        for (u32 at = 0; at < total; at += 32) {
            const u32 entry = at + lane;
            u32 owner = 0;  // lanes whose entries all come before this one
#pragma unroll
            for (u32 half = 16; half > 0; half /= 2) {
                const u32 before = __shfl_sync(~0u, up_to, static_cast<int>(owner + half - 1));
                if (before <= entry) owner += half;
            }
            const u32 owners_begin = __shfl_sync(~0u, begin, static_cast<int>(owner));
            const u32 owners_first = __shfl_sync(~0u, up_to - length, static_cast<int>(owner));
            bool near = entry < total;
            int distance = 0;
            u32 slot = 0;
            if (near) {
                slot = slots[owners_begin + (entry - owners_first)];
                const u64* row = row_at(tables.rows, slot, tables.words);
                distance = hamming(row, query, tables.words);
                near = distance <= bound() && !seen_before(tables, step, row, query);
            }
            collect(near, distance, slot);
        }
    }
    return true;
}
