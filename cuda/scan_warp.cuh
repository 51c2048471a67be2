// A scan on tensor cores by warp, of any product: scan_mma.cuh has the 1-bit one, scan_imma.cuh
// INT8.
//
//                        naive                       tiled
//   a warp has           16 queries, 8 rows          32 queries, 64 rows of a block's 128 and 128
//   bytes a pair         2 * 8 * words / 16 (L1)     8 * words / 128 (L2), cp.async, two stages
//   limit                waiting for loads           tensor cores, or minima (half as many of three
//                                                    inputs: sm_90 and later)
//
// Codes go to shared memory as they are, a plane of 16 bytes a row for each step of 128 bits: a
// warp's loads of 8 rows are 128 bytes on end. A Product makes fragments of them in registers:
//
//   kScale              an accumulator is so many times the distance
//   part()              which of a step's four times 32 bits this lane has
//   bits(x)             which of these it multiplies
//   start(row, words)   what a query's accumulators begin with
//   add_step(d, a, b, there)   d[m] is of the 16 queries whose bits, of rows g and g + 8, are a[m],
//                       and of 8 rows for each of b; there: all ones where this lane has words;
//                       a and b are lost
#pragma once

#include "mma.cuh"
#include "tensor.cuh"

constexpr int kThreads = 256;
constexpr int kQueries = 128, kRows = 128;                // of a block
constexpr int kWarpQueries = 32, kWarpRows = 64;          // of its 4 x 2 warps
constexpr int kSlice = kWords ? (kWords + 1) / 2 : 4;     // steps of a stage
constexpr int kUnit = kWords && kWords % 2 == 0 ? 2 : 1;  // words of a copy, as rows are aligned
constexpr int kStage = kSlice * kRows * 2;                // words

template <class Product>
__device__ __forceinline__ u32 there(int step, int words) {
    return 2 * step + Product::part() / 2 < row_words(words) ? ~0u : 0;
}
// What the accumulators of two queries begin with.
template <class Product>
struct Start {
    int of[2];

    __device__ __forceinline__ Start(const Work& work, const Pair& pair) {
#pragma unroll
        for (int half = 0; half < 2; half++)
            of[half] =
                Product::start(row_at(work.queries, pair.query[half], work.words), work.words);
    }
    template <int kCount>
    __device__ __forceinline__ void put(int (&d)[kCount]) const {
#pragma unroll
        for (int i = 0; i < kCount; i++) d[i] = of[i / 2 % 2];
    }
};

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
template <class Product, class Collector>
__device__ __forceinline__ void scan_tiled(const Work& work, u64* memory,
                                           const Collector& collector) {
    const int words = row_words(work.words), steps = steps_of(words);
    const int slices = (steps + kSlice - 1) / kSlice;
    const int warp = static_cast<int>(threadIdx.x / 32);
    const int g = static_cast<int>(threadIdx.x % 32 / 4), part = Product::part();
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
        const Start<Product> starts[2] = {{work, pairs[0]}, {work, pairs[1]}};
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
                    starts[m].put(d[m]);
                }
            }
            copies_wait<1>();
            __syncthreads();
            const u32* const rows = reinterpret_cast<const u32*>(stages + i % 2 * kStage);
#pragma unroll(Product::kUnroll)
            for (int s = 0; s < kSlice; s++) {
                const int step = slice * kSlice + s;
                if (!kWords && step >= steps) break;
                u32 a[2][2], b[kWarpRows / 8];
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const int q = my_queries + 16 * m + 8 * half + g;
                        a[m][half] = Product::bits(queries[(step * kQueries + q) * 4 + part]);
                    }
#pragma unroll
                for (int j = 0; j < kWarpRows / 8; j++)
                    b[j] = Product::bits(rows[(s * kRows + my_rows + 8 * j + g) * 4 + part]);
                Product::add_step(d, a, b, there<Product>(step, words));
            }
            if (slice + 1 == slices) {
#pragma unroll
                for (int m = 0; m < 2; m++)
                    collect<Product::kScale>(work, collector, d[m], slot_of(tile) + my_rows,
                                             pairs[m]);
            }
            __syncthreads();  // this stage has been read
            tile = next_tile;
            slice = next_slice;
        }
    });
}

// A step of 16 queries and of the 8 rows from `slot` on, fragments straight from memory.
template <class Product>
__device__ __forceinline__ void add_fragments(const Work& work, const Pair& pair, u32 slot,
                                              int step, int (&d)[1][4]) {
    const int words = row_words(work.words);
    const auto bits_of = [&](const u64* row) {
        const u64 word = word_or_zero(row, 2 * step + Product::part() / 2, words);
        return Product::bits(static_cast<u32>(word >> Product::part() % 2 * 32));
    };
    u32 a[1][2], b[1];
#pragma unroll
    for (int half = 0; half < 2; half++)
        a[0][half] = bits_of(row_at(work.queries, pair.query[half], words));
    const u32 row = min(slot + threadIdx.x % 32 / 4, work.last - 1);
    b[0] = bits_of(row_at(work.rows, row, words));
    Product::add_step(d, a, b, there<Product>(step, words));
}

// The whole scan that way, for comparison: a warp for each 16 queries and 8 rows.
template <class Product, class Collector>
__device__ __forceinline__ void scan_fragments(const Work& work, const Collector& collector) {
    const int g = static_cast<int>(threadIdx.x % 32 / 4);
    const u32 n_todo = *work.n_todo, groups = (n_todo + 15) / 16;
    const u64 items = u64{(work.last - work.first + 7) / 8} * groups;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u64 i = (blockIdx.x * blockDim.x + threadIdx.x) / 32; i < items; i += warps) {
        const u32 slot = work.first + static_cast<u32>(i / groups) * 8;
        const u32 at = static_cast<u32>(i % groups) * 16;
        Pair pair({work.todo + at, static_cast<int>(min(16u, n_todo - at)), 0, 0}, g);
        pair.look_up(collector);
        int d[1][4];
        Start<Product>(work, pair).put(d[0]);
        for (int step = 0; step < steps_of(work.words); step++)
            add_fragments<Product>(work, pair, slot, step, d);
        collect<Product::kScale>(work, collector, d[0], slot, pair);
    }
}
