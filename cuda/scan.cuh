// All slots of a range against all queries that are to be scanned for.
//
// A block holds kQueries queries in shared memory and streams rows past them: a thread keeps kRows
// rows in registers and compares each with every query. Which queries a thread's rows are near to
// is one bit each, so that the loop over the pairs has no branch; what is near is compared again,
// and is rare: a query's bound is soon not far above its k-th distance.
//
// A pair of w words takes 2w POPC, 2w LOP3, about w IADD3, and its share of one minimum, one
// compare and one bit: 4 lanes a clock for POPC, 16 for the others, so POPC is the limit, 16 pairs
// of 64 bits per 2 clocks and SM. A row is read from memory once per kQueries queries.
#pragma once

#include "work.cuh"

constexpr int kThreads = 256;
constexpr int kQueries = 32;
constexpr int kRows = kWords == 1 || kWords == 2 ? 4 : kWords == 4 ? 2 : 1;
constexpr int kUnrolled = kWords == 8 ? 2 : kWords == 4 ? 4 : 8;  // queries; more spill registers
constexpr u32 kTile = kThreads * kRows;

// The rows that a thread compares, kThreads apart from `at` on; beyond the last, the last again.
struct Rows {
#if kWords > 0
    u64 row[kRows][kWords];

    __device__ __forceinline__ Rows(const Work& work, u32 at) {
#pragma unroll
        for (int r = 0; r < kRows; r++) {
            const u64* from = row_at(work.rows, min(at + r * kThreads, work.last - 1), kWords);
#if kWords % 2 == 0
#pragma unroll
            for (int w = 0; w < kWords; w += 2) {
                const ulonglong2 pair = *reinterpret_cast<const ulonglong2*>(from + w);
                row[r][w] = pair.x;
                row[r][w + 1] = pair.y;
            }
#else
#pragma unroll
            for (int w = 0; w < kWords; w++) row[r][w] = from[w];
#endif
        }
    }

    // Which of n queries have one of the rows within their bounds.
    __device__ __forceinline__ u32 near(const u64* tile, const int* bounds, int n, int) const {
        u32 near = 0;
#pragma unroll(kUnrolled)
        for (int q = 0; q < n; q++) {
            int nearest = hamming(row[0], tile + q * kWords, kWords);
#pragma unroll
            for (int r = 1; r < kRows; r++)
                nearest = min(nearest, hamming(row[r], tile + q * kWords, kWords));
            near |= nearest <= bounds[q] ? 1u << q : 0;
        }
        return near;
    }
#else
    const u64* row;  // too long for registers

    __device__ __forceinline__ Rows(const Work& work, u32 at)
        : row(row_at(work.rows, min(at, work.last - 1), work.words)) {}

    __device__ __forceinline__ u32 near(const u64* tile, const int* bounds, int n,
                                        int words) const {
        constexpr int kGroup = 8;  // queries by which a word of the row is used once it is read
        u32 near = 0;
        for (int first = 0; first < n; first += kGroup) {
            int distance[kGroup] = {};
            for (int w = 0; w < words; w++) {
                const u64 word = row[w];
#pragma unroll
                for (int q = 0; q < kGroup; q++)
                    distance[q] += __popcll(word ^ tile[(first + q) * words + w]);
            }
#pragma unroll
            for (int q = 0; q < kGroup; q++)
                near |= distance[q] <= bounds[first + q] ? 1u << (first + q) : 0;
        }
        return near;
    }
#endif
};

// Calls collector.add(query, distance, slot) for every pair with distance <= collector.bound(query)
// as it is when the pair is met; the bound may fall meanwhile. `tile` is shared memory for kQueries
// rows.
template <class Collector>
__device__ __forceinline__ void scan(const Work& work, u64* tile, const Collector& collector) {
    __shared__ int bounds[kQueries];
    __shared__ u32 hit[kQueries];
    const int words = row_words(work.words);
    deal<kQueries, kTile>(work, [&](const Share& share) {
        const u32* const todo = share.todo;
        const int n = share.n;
        for (int i = threadIdx.x; i < kQueries * words; i += kThreads)
            tile[i] = i < n * words ? row_at(work.queries, todo[i / words], words)[i % words] : 0;
        for (u32 t = share.begin; t < share.end; t++) {
            const u32 at = work.first + t * kTile + threadIdx.x;
            const Rows mine(work, at);  // on their way while the bounds are looked up
            if (threadIdx.x < kQueries) {
                const int q = static_cast<int>(threadIdx.x);
                bounds[q] = q < n ? collector.bound_of(todo[q]) : -1;
                hit[q] = 0;
            }
            __syncthreads();
            u32 near = mine.near(tile, bounds, n, words);
            for (; near != 0; near &= near - 1) {
                const int q = __ffs(static_cast<int>(near)) - 1;
                for (int r = 0; r < kRows; r++) {
                    const u32 slot = at + r * kThreads;
                    if (slot >= work.last) break;
                    const int distance =
                        hamming(row_at(work.rows, slot, words), tile + q * words, words);
                    if (distance > bounds[q]) continue;
                    collector.add(todo[q], distance, slot);
                    atomicExch(&hit[q], 1u);
                }
            }
            __syncthreads();
            for (int q = threadIdx.x / 32; q < n; q += kThreads / 32)
                if (hit[q] != 0) collector.tighten(todo[q]);
            __syncthreads();
        }
    });
}

// The same by the shortest way, for comparison: a thread per pair, everything from memory.
template <class Collector>
__device__ __forceinline__ void scan_naive(const Work& work, const Collector& collector) {
    const u64 slots = work.last - work.first;
    const u64 pairs = slots * *work.n_todo;
    for (u64 pair = u64{blockIdx.x} * blockDim.x + threadIdx.x; pair < pairs;
         pair += u64{gridDim.x} * blockDim.x) {
        const u32 query = work.todo[pair / slots];
        const u32 slot = work.first + static_cast<u32>(pair % slots);
        const int distance = hamming(row_at(work.rows, slot, work.words),
                                     row_at(work.queries, query, work.words), work.words);
        if (distance <= collector.bound_of(query)) collector.add(query, distance, slot);
    }
}
