// A scan on the tensor cores of sm_80 to sm_90, by warp: tensor.cuh says what is multiplied.
//
//                        naive                       tiled
//   a warp has           16 queries, 8 rows          32 queries, 64 rows of a block's 128 and 128
//   bytes a pair         2 * 8 * words / 16 (L1)     8 * words / 128 (L2), cp.async, two stages
//   a pair and step      1/128 mma, about 0.5 other  1/128 mma, 12 / 2048 loads, 1 minimum in all
//   limit                waiting for loads           tensor cores, minima (half as many with sm_90)
//
// A step's fragment b1 is the complement of b0: K is laid out so that a lane's 32 bits of the
// complements are those 128 bits behind its bits themselves. So codes go to shared memory as they
// are, a plane of 16 bytes a row for each step: a warp's loads of 8 rows are 128 bytes on end.
//
// Predicted for an A100 (108 SMs, 1.41 GHz, an mma every 8 clocks and quarter of an SM): tensor
// cores 9.7e12 pairs/s a step of 128 bits; minima 0.94 of a lane's 16 a clock as much again where
// they do not overlap: 5 to 9e12 pairs/s at up to 128 bits, half of it at 256. Naive: a tenth.
// Derived; measured: not yet.
#pragma once

#include "mma.cuh"
#include "tensor.cuh"

constexpr int kThreads = 256;
constexpr int kQueries = 128, kRows = 128;                // of a block
constexpr int kWarpQueries = 32, kWarpRows = 64;          // of its 4 x 2 warps
constexpr int kSlice = kWords ? (kWords + 1) / 2 : 4;     // steps of a stage
constexpr int kUnit = kWords && kWords % 2 == 0 ? 2 : 1;  // words of a copy, as rows are aligned
constexpr int kStage = kSlice * kRows * 2;                // words

// Fragments of a step, of words as two 32-bit halves each: 4 of them by t.
__device__ __forceinline__ void set_query(MmaFragments& f, int half, u32 bits, u32 there) {
    f.a[half] = ~bits & there;
    f.a[2 + half] = bits;
}
__device__ __forceinline__ void set_row(MmaFragments& f, u32 bits) {
    f.b[0] = bits;
    f.b[1] = ~bits;
}
// All ones where a step has words for this lane.
__device__ __forceinline__ u32 there(int step, int words) {
    return 2 * step + static_cast<int>(threadIdx.x % 4) / 2 < row_words(words) ? ~0u : 0;
}

// Queues copies of a slice of the rows of a tile; beyond the last row, the last again.
__device__ __forceinline__ void copy_slice(u64* stage, const Work& work, u32 slot, int slice) {
    const int words = row_words(work.words);
    const int units = min(2 * kSlice, words - 2 * kSlice * slice) / kUnit;
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < kRows * units; i += kThreads) {
        const int row = i / units, word = i % units * kUnit;
        const u64* from = row_at(work.rows, min(slot + row, work.last - 1), words);
        copy_async<8 * kUnit>(stage + (word / 2 * kRows + row) * 2 + word % 2,
                              from + 2 * kSlice * slice + word);
    }
}

// Calls the collector as scan.cuh's does. `memory`: queries, steps * kQueries * 2 words, then two
// stages of kStage words.
template <class Collector>
__device__ __forceinline__ void scan_tiled(const Work& work, u64* memory,
                                           const Collector& collector) {
    const int words = row_words(work.words), steps = steps_of(words);
    const int slices = (steps + kSlice - 1) / kSlice;
    const int warp = static_cast<int>(threadIdx.x / 32);
    const int g = static_cast<int>(threadIdx.x % 32 / 4), t = static_cast<int>(threadIdx.x % 4);
    const int my_queries = warp / 2 * kWarpQueries, my_rows = warp % 2 * kWarpRows;
    u64* const stages = memory + steps * kQueries * 2;
    const u32* const queries = reinterpret_cast<const u32*>(memory);

    deal<kQueries, kRows>(work, [&](const Share& share) {
        for (int i = static_cast<int>(threadIdx.x); i < kQueries * 2 * steps; i += kThreads) {
            const int q = i / (2 * steps), word = i % (2 * steps);
            const u64* const from = row_at(work.queries, share.todo[min(q, share.n - 1)], words);
            memory[(word / 2 * kQueries + q) * 2 + word % 2] = word_or_zero(from, word, words);
        }
        Pair pairs[2] = {{share, my_queries + g}, {share, my_queries + 16 + g}};
        const auto slot_of = [&](u32 tile) { return work.first + tile * kRows; };
        const u32 stages_in_all = (share.end - share.begin) * static_cast<u32>(slices);
        copy_slice(stages, work, slot_of(share.begin), 0);
        copies_commit();
        int d[2][kWarpRows / 2];
        u32 tile = share.begin;
        int slice = 0;
        for (u32 i = 0; i < stages_in_all; i++) {
            const u32 next_tile = slice + 1 < slices ? tile : tile + 1;
            const int next_slice = slice + 1 < slices ? slice + 1 : 0;
            if (i + 1 < stages_in_all)
                copy_slice(stages + (i + 1) % 2 * kStage, work, slot_of(next_tile), next_slice);
            copies_commit();
            if (slice == 0) {
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    pairs[m].look_up(collector);
#pragma unroll
                    for (int& distance : d[m]) distance = 0;
                }
            }
            copies_wait<1>();
            __syncthreads();
            const u32* const rows = reinterpret_cast<const u32*>(stages + i % 2 * kStage);
#pragma unroll(kSlice)
            for (int s = 0; s < kSlice; s++) {
                const int step = slice * kSlice + s;
                if (!kWords && step >= steps) break;
                MmaFragments f[2];
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const int q = my_queries + 16 * m + 8 * half + g;
                        set_query(f[m], half, queries[(step * kQueries + q) * 4 + t],
                                  there(step, words));
                    }
#pragma unroll
                for (int j = 0; j < kWarpRows / 8; j++) {
                    const u32 bits = rows[(s * kRows + my_rows + 8 * j + g) * 4 + t];
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        set_row(f[m], bits);
                        mma_and_popc(f[m], d[m][4 * j], d[m][4 * j + 1], d[m][4 * j + 2],
                                     d[m][4 * j + 3]);
                    }
                }
            }
            if (slice + 1 == slices) {
#pragma unroll
                for (int m = 0; m < 2; m++)
                    collect(work, collector, d[m], slot_of(tile) + my_rows, pairs[m]);
            }
            __syncthreads();  // this stage has been read
            tile = next_tile;
            slice = next_slice;
        }
    });
}

// The same by the shortest way, for comparison: fragments straight from memory, a warp for each 16
// queries and 8 rows.
template <class Collector>
__device__ __forceinline__ void scan_fragments(const Work& work, const Collector& collector) {
    const int words = row_words(work.words), g = static_cast<int>(threadIdx.x % 32 / 4);
    const auto half_word = [&](const u64* row, int step) {
        const int t = static_cast<int>(threadIdx.x % 4);
        const u64 word = word_or_zero(row, 2 * step + t / 2, words);
        return static_cast<u32>(word >> t % 2 * 32);
    };
    const u32 n_todo = *work.n_todo, groups = (n_todo + 15) / 16;
    const u64 items = u64{(work.last - work.first + 7) / 8} * groups;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u64 i = (blockIdx.x * blockDim.x + threadIdx.x) / 32; i < items; i += warps) {
        const u32 slot = work.first + static_cast<u32>(i / groups) * 8;
        const u32 at = static_cast<u32>(i % groups) * 16;
        Pair pair({work.todo + at, static_cast<int>(min(16u, n_todo - at)), 0, 0}, g);
        pair.look_up(collector);
        int d[4] = {};
        for (int step = 0; step < steps_of(words); step++) {
            MmaFragments f;
#pragma unroll
            for (int half = 0; half < 2; half++)
                set_query(f, half, half_word(row_at(work.queries, pair.query[half], words), step),
                          there(step, words));
            set_row(f, half_word(row_at(work.rows, min(slot + g, work.last - 1), words), step));
            mma_and_popc(f, d[0], d[1], d[2], d[3]);
        }
        collect(work, collector, d, slot, pair);
    }
}
