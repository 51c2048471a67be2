// arch: sm_80 sm_86 sm_89 sm_90
// compile: kWords=0,1,2,4
//
// k-NN on tensor cores, by warp: scan_mma.cuh, with the collector of scan_knn.cu.
#include "nearest.cuh"
#include "scan_mma.cuh"

// Of the slots [first, last). Grid of any size, kThreads threads, dynamic shared memory of
// 16 * (steps * kQueries + 2 * kSlice * kRows) bytes, steps being half the words, rounded up.
extern "C" __global__ void __launch_bounds__(256, 2)
    scan_mma_knn(WORK_PARAMETERS, u32 k, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ __align__(16) u64 memory[];
    scan_tiled<Bits>(WORK, memory, Nearest{FOUND, LISTS, k});
}

extern "C" __global__ void __launch_bounds__(256, 2)
    scan_mma_knn_naive(WORK_PARAMETERS, u32 k, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    scan_fragments<Bits>(WORK, Nearest{FOUND, LISTS, k});
}
