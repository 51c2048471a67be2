// A scan on the tensor cores of sm_90a, by warpgroup: tensor.cuh says what is multiplied.
//
// A block has 128 queries in shared memory, as [~a, a], and streams tiles of 256 rows past them.
// The first warpgroup fetches rows into registers, four stages ahead, and writes them and their
// complements to a ring of stages, of one step each; two warpgroups of 64 queries wait for a stage,
// multiply, give the stage back, and look at the distances. While one looks, the tensor cores work
// for the other. mbarriers say when a stage is full and when it is empty.
//
//   bytes a pair         8 * words / 128 (L2 or memory)
//   a pair and step      1 / 16384 wgmma; 16 bytes of shared memory written a row, 32 read
//   a pair               0.5 three-input minima, 1/64 of a compare
//   limit                tensor cores, if 1-bit wgmma runs as has been published for an H200
//
// Predicted for an H200 (132 SMs, 1.8 GHz): 9.6e15 operations/s were published for a 1-bit product
// by wgmma, that is 207 clocks for m64n256k256. A tile of a warpgroup takes these once a step, and
// then 64 minima a lane, at 16 lanes a clock and quarter 128 clocks, and about 60 for the rest; two
// warpgroups take turns: max(2 * 207 * steps, 207 * steps + 190) clocks for 2 * 16384 pairs. That
// is 1.9e13 pairs/s at up to 128 bits, 0.94e13 at 256, 0.47e13 at 512. Were the tensor cores at
// their nominal rate (128 clocks) minima would be the limit at 128 bits: 2.4e13. Derived; measured:
// not yet.
//
// Rows go through registers because of their complements; so the bulk copy engine (cp.async.bulk)
// would save nothing: the fetching warps would read from shared memory what they now get from L2.
#pragma once

#include "tensor.cuh"
#include "wgmma.cuh"

constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kThreads = 3 * kGroup;
constexpr int kQueries = 128, kRows = 256;
constexpr int kStages = 4;
constexpr int kFeeding = 72, kMultiplying = 216;  // registers of a thread: of 65,536 in all
constexpr int kPlane = 2 * kRows;                 // words: 16 bytes a row
constexpr int kStage = 2 * kPlane;                // rows, complements
constexpr int kQueryPlane = 2 * kQueries;         // words
constexpr u32 kCoreMatrix = 128;                  // bytes: 8 rows of a plane

// Stages are filled and emptied in turn, with a barrier for each of both. A share's queries are
// written before its first stage is said to be full, and `queries_read` tells when they may be
// overwritten.
struct Ring {
    u64 *full, *empty, *queries_read;
    u32 turn, shares;

    __device__ __forceinline__ u32 stage() const { return turn % kStages; }
    __device__ __forceinline__ u32 parity() const { return turn / kStages % 2; }
    // Of those who fill, by each warp.
    __device__ __forceinline__ void wait_until_empty() const {
        mbarrier_wait(&empty[stage()], parity() ^ 1);
    }
    __device__ __forceinline__ void filled() {
        fence_proxy_async();
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(&full[stage()]);
        turn++;
    }
    __device__ __forceinline__ void wait_until_queries_are_read() {
        mbarrier_wait(queries_read, shares++ % 2 ^ 1);
    }
    // Of those who empty.
    __device__ __forceinline__ void wait_until_full() const {
        mbarrier_wait(&full[stage()], parity());
        __syncwarp();  // who has waited longer than others: wgmma takes whole warps
    }
    // The stage of the turn before.
    __device__ __forceinline__ void emptied() const {
        if (threadIdx.x % 32 == 0) mbarrier_arrive(&empty[(turn - 1) % kStages]);
    }
    __device__ __forceinline__ void read_queries() const {
        if (threadIdx.x % 32 == 0) mbarrier_arrive(queries_read);
    }
};

// What a thread fetches of a step: two words of each of two rows, kGroup apart. Beyond the last row
// the last again, beyond the last word anything.
struct Fetched {
    ulonglong2 words[kRows / kGroup];

    __device__ __forceinline__ void fetch(const Work& work, u32 slot, int step) {
#pragma unroll
        for (int r = 0; r < kRows / kGroup; r++) {
            const u32 at = min(slot + r * kGroup + threadIdx.x % kGroup, work.last - 1);
            const u64* const from = row_at(work.rows, at, work.words) + 2 * step;
#if kWords > 0 && kWords % 2 == 0
            words[r] = *reinterpret_cast<const ulonglong2*>(from);
#else
            words[r] = {from[0], from[2 * step + 1 < row_words(work.words) ? 1 : 0]};
#endif
        }
    }
    __device__ __forceinline__ void put(u64* stage) const {
#pragma unroll
        for (int r = 0; r < kRows / kGroup; r++) {
            const int row = r * kGroup + static_cast<int>(threadIdx.x % kGroup);
            *reinterpret_cast<ulonglong2*>(stage + 2 * row) = words[r];
            *reinterpret_cast<ulonglong2*>(stage + kPlane + 2 * row) = {~words[r].x, ~words[r].y};
        }
    }
};

// The first warpgroup: the queries of a share, and every step of every tile.
__device__ __forceinline__ void feed(const Work& work, const Share& share, u64* stages,
                                     u64* queries, Ring& ring) {
    const int words = row_words(work.words), steps = steps_of(words);
    const u32 total = (share.end - share.begin) * static_cast<u32>(steps);
    u32 slot = work.first + share.begin * kRows;  // of what is fetched next
    int step = 0;
    Fetched ahead[kStages];
    const auto fetch = [&](Fetched& into) {
        if (slot >= work.last) return;  // all has been fetched
        into.fetch(work, slot, step);
        if (++step == steps) {
            step = 0;
            slot += kRows;
        }
    };
#pragma unroll
    for (Fetched& one : ahead) fetch(one);
    ring.wait_until_queries_are_read();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kQueries * 2 * steps; i += kGroup) {
        const int q = i / (2 * steps), word = i % (2 * steps);
        const u64* const from = row_at(work.queries, share.todo[min(q, share.n - 1)], words);
        u64* const to = queries + word / 2 * 2 * kQueryPlane + 2 * q + word % 2;
        to[0] = word < words ? ~from[word] : 0;
        to[kQueryPlane] = word_or_zero(from, word, words);
    }
    for (u32 i = 0; i < total; i += kStages) {
#pragma unroll
        for (u32 j = 0; j < kStages; j++) {
            if (i + j >= total) break;
            ring.wait_until_empty();
            ahead[j].put(stages + ring.stage() * kStage);
            ring.filled();
            fetch(ahead[j]);
        }
    }
}

// The others: 64 queries each.
template <class Collector>
__device__ __forceinline__ void multiply(const Work& work, const Share& share, const u64* stages,
                                         const u64* queries, Ring& ring,
                                         const Collector& collector) {
    const int steps = steps_of(work.words);
    const int warp = static_cast<int>(threadIdx.x / 32) % 4;
    const int first = (static_cast<int>(threadIdx.x) / kGroup - 1) * 64;  // of its queries
    Pair pair(share, first + 16 * warp + static_cast<int>(threadIdx.x % 32) / 4);
    int d[kAccumulators];
    for (u32 tile = share.begin; tile < share.end; tile++) {
        pair.look_up(collector);  // on its way while the tensor cores work
        for (int step = 0; step < steps; step++) {
            const u32 stage = ring.stage();
            ring.wait_until_full();
            wgmma_fence();
            wgmma(
                d,
                operand(queries + step * 2 * kQueryPlane + 2 * first, 8 * kQueryPlane, kCoreMatrix),
                operand(stages + stage * kStage, 8 * kPlane, kCoreMatrix), step > 0);
            wgmma_commit();
            if (step > 0) {
                wgmma_wait_for_others();
                ring.emptied();
            }
            ring.turn++;
        }
        wgmma_wait(d);
        ring.emptied();
        collect(work, collector, d, work.first + tile * kRows, pair);
    }
    ring.read_queries();
}

// Calls the collector as scan.cuh's does. `memory`: kStages * kStage words, then for each step the
// queries' two planes of kQueryPlane.
template <class Collector>
__device__ __forceinline__ void scan_pipelined(const Work& work, u64* memory,
                                               const Collector& collector) {
    __shared__ u64 full[kStages];
    __shared__ u64 empty[kStages];
    __shared__ u64 queries_read[1];
    if (threadIdx.x < kStages) {
        mbarrier_init(&full[threadIdx.x], kGroup / 32);       // by each warp of the first group
        mbarrier_init(&empty[threadIdx.x], 2 * kGroup / 32);  // and of the others
    }
    if (threadIdx.x == 0) mbarrier_init(queries_read, 2 * kGroup / 32);
    __syncthreads();
    Ring ring{full, empty, queries_read, 0, 0};
    u64* const queries = memory + kStages * kStage;
    if (threadIdx.x < kGroup) {
        fewer_registers<kFeeding>();
        deal<kQueries, kRows>(
            work, [&](const Share& share) { feed(work, share, memory, queries, ring); });
    } else {
        more_registers<kMultiplying>();
        deal<kQueries, kRows>(work, [&](const Share& share) {
            multiply(work, share, memory, queries, ring, collector);
        });
    }
}
