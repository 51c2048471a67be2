// What scans on tensor cores share: the trick, and what becomes of the distances.
//
// Tensor cores count the bits of a & b. A Hamming distance is popc(~a & b) + popc(a & ~b), so that
// with queries as [~a, a] and codes as [b, ~b], K = 2 d bits long, the accumulator is the distance
// itself, exactly. A step of an instruction is 256 bits of K: two words of a code, and their
// complements. Words beyond the last are zeros in both halves of a query's step, whatever a code
// has there; bits beyond d are zeros in both, so their complements meet zeros.
//
// Queries are the rows M, codes the columns N. The fragment of an accumulator is the same for
// mma.m16n8 and for wgmma.m64nN (PTX ISA, "Register Fragments", accumulator D): of each 16 rows and
// 8 columns lane l has row l / 4 and columns 2 (l % 4), 2 (l % 4) + 1, then the same columns of row
// l / 4 + 8. So a thread has distances of two queries only, to many codes: one minimum a query over
// all of them is held against the query's bound. Three-input minima make that half an instruction a
// pair (sm_90; one before). What is within a bound is compared again, by the words in memory, and
// goes to the collector of any other scan.
//
// Where 1-bit products are emulated, those of bytes take their place: scan_imma.cuh.
#pragma once

#include "work.cuh"

__device__ __forceinline__ int steps_of(int words) {
    return (row_words(words) + 1) / 2;
}

// The words that a step of a query has, zeros beyond the last.
__device__ __forceinline__ u64 word_or_zero(const u64* row, int word, int words) {
    return word < row_words(words) ? row[word] : 0;
}

// The two queries of which this thread has distances. `place` is of the first among the n of a
// share. A bound of -1 lets nothing pass.
struct Pair {
    u32 query[2];
    int bound[2];
    bool there[2];

    __device__ __forceinline__ Pair(const Share& share, int place) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            there[half] = place + 8 * half < share.n;
            query[half] = share.todo[min(place + 8 * half, share.n - 1)];
            bound[half] = -1;
        }
    }
    template <class Collector>
    __device__ __forceinline__ void look_up(const Collector& collector) {
#pragma unroll
        for (int half = 0; half < 2; half++)
            bound[half] = there[half] ? collector.bound_of(query[half]) : -1;
    }
};

// The smallest of one query's accumulators.
template <int kCount>
__device__ __forceinline__ int smallest(const int (&d)[kCount], int half) {
    int found = min(d[2 * half], d[2 * half + 1]);
#pragma unroll
    for (int i = 4; i < kCount; i += 4)
        found = min(min(found, d[i + 2 * half]), d[i + 2 * half + 1]);
    return found;
}

// Hands what is within the bounds to the collector. d are a warp's distances of 16 queries to the
// 2 * kCount slots from `slot` on, each kScale times. All lanes take part.
template <int kScale = 1, int kCount, class Collector>
__device__ __forceinline__ void collect(const Work& work, const Collector& collector,
                                        const int (&d)[kCount], u32 slot, const Pair& pair) {
    const bool near[2] = {smallest(d, 0) <= kScale * pair.bound[0],
                          smallest(d, 1) <= kScale * pair.bound[1]};
    if (!__any_sync(~0u, near[0] || near[1])) return;
    u32 hit = 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (!near[half]) continue;  // mostly all lanes of a warp but one or two
        u64 within = 0;
#pragma unroll
        for (int i = 0; i < kCount / 2; i++)
            within |= u64{d[i / 2 * 4 + 2 * half + i % 2] <= kScale * pair.bound[half]} << i;
        for (; within != 0; within &= within - 1) {
            const u32 i = static_cast<u32>(__ffsll(static_cast<i64>(within)) - 1);
            const u32 at = slot + 8 * (i / 2) + 2 * (threadIdx.x % 4) + i % 2;
            if (at >= work.last) break;
            const u32 query = pair.query[half];
            const u64* const a = row_at(work.rows, at, work.words);
            const u64* const b = row_at(work.queries, query, work.words);
            int distance = 0;
#pragma unroll 1  // registers are full of distances
            for (int w = 0; w < row_words(work.words); w++) distance += __popcll(a[w] ^ b[w]);
            if (distance > pair.bound[half]) continue;
            collector.add(query, distance, at);
            hit |= 1u << half;
        }
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 hits = __ballot_sync(~0u, hit >> half & 1);
        for (int g = 0; g < 8; g++)
            if ((hits >> 4 * g & 15) != 0)
                collector.tighten(__shfl_sync(~0u, pair.query[half], 4 * g));
    }
}
