// compile: kWords=0,1,2,4,8
//
// k-NN by comparing everything: scan.cuh with a bound that falls.
//
//                       scan_knn                          scan_knn_naive
//   bytes per pair      8 * words / 32 (L2 or memory)     16 * words (L1 or L2)
//   operations          2 POPC, 2 LOP3, 1 IADD3 a word    the same, and about 40 for the address
//   limit               POPC: 16 lanes a clock and SM     issue
//
// Derived on an H200 (132 SMs, 1.9 GHz): 2.0e12 pairs/s of 64 bits, 1.0e12 of 128, 0.5e12 of 256.
// For a lone query the rows are read once: 8 * words * n bytes at 4.3e12 bytes/s. Not measured.
//
// How many slots are found per query, of n, when the first bound comes from a sample of s, and R
// rows are under way at a time: about k * (R / s + ln(n / s)). Each costs three atomics in L2.
#include "nearest.cuh"
#include "scan.cuh"

// Of the slots [first, last). Grid of any size, kThreads threads, 8 * words * kQueries bytes of
// dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256, 4)
    scan_knn(WORK_PARAMETERS, u32 k, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ u64 tile[];
    scan(WORK, tile, Nearest{FOUND, LISTS, k});
}

extern "C" __global__ void __launch_bounds__(256, 4)
    scan_knn_naive(WORK_PARAMETERS, u32 k, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    scan_naive(WORK, Nearest{FOUND, LISTS, k});
}

// Counts `sample` of the slots [first, last), in runs of kThreads spread evenly, for the first
// bounds. sample is a multiple of kThreads, 2 * sample <= last - first. A block counts for
// `tile_queries` queries in shared memory, 4 * tile_queries * (d + 1) bytes; its threads are rows,
// its runs every gridDim.y-th.
extern "C" __global__ void __launch_bounds__(256, 4)
    scan_sample(WORK_PARAMETERS, u32 sample, int tile_queries, u32* __restrict__ hist, int d,
                LISTS_PARAMETERS) {
    extern __shared__ u32 counters[];
    const Lists lists = LISTS;
    const u32 runs = sample / kThreads, stride = (last - first) / runs;
    for (u32 begin = blockIdx.x * tile_queries; begin < *n_todo;
         begin += gridDim.x * tile_queries) {
        const int n = static_cast<int>(min(static_cast<u32>(tile_queries), *n_todo - begin));
        for (int i = threadIdx.x; i < n * (d + 1); i += kThreads) counters[i] = 0;
        __syncthreads();
        for (u32 run = blockIdx.y; run < runs; run += gridDim.y) {
            const u32 slot = first + run * stride + threadIdx.x;
            const u32 weight = lists.weight(slot);
            const u64* row = row_at(rows, slot, words);
            for (int q = 0; weight != 0 && q < n; q++) {
                const int distance = hamming(row, row_at(queries, todo[begin + q], words), words);
                atomicAdd(&counters[q * (d + 1) + distance], weight);
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n * (d + 1); i += kThreads) {
            if (counters[i] == 0) continue;
            const u32 query = todo[begin + i / (d + 1)];
            atomicAdd(&hist[u64{query} * static_cast<u32>(d + 1) + i % (d + 1)], counters[i]);
        }
        __syncthreads();
    }
}
