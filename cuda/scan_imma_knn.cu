// arch: sm_100 sm_120
// compile: kWords=0,1,2,4
//
// k-NN on tensor cores, by products of bytes: scan_imma.cuh, with the collector of scan_knn.cu.
#include "nearest.cuh"
#include "scan_imma.cuh"

// Of the slots [first, last). Grid of any size, kThreads threads, dynamic shared memory of
// 16 * (steps * kQueries + 2 * kSlice * kRows) bytes, steps being half the words, rounded up.
extern "C" __global__ void __launch_bounds__(256, 2)
    scan_imma_knn(WORK_PARAMETERS, u32 k, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ __align__(16) u64 memory[];
    scan_tiled<Bytes>(WORK, memory, Nearest{FOUND, LISTS, k});
}

extern "C" __global__ void __launch_bounds__(256, 2)
    scan_imma_knn_naive(WORK_PARAMETERS, u32 k, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    scan_fragments<Bytes>(WORK, Nearest{FOUND, LISTS, k});
}
