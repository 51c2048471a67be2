// arch: sm_80 sm_86 sm_89 sm_90
// compile: kWords=0,1,2,4
//
// Range search on tensor cores, by warp: scan_mma.cuh, with the collector of scan_range.cu.
#include "scan_mma.cuh"
#include "within.cuh"

// Of the slots [first, last). Grid of any size, kThreads threads, dynamic shared memory of
// 16 * (steps * kQueries + 2 * kSlice * kRows) bytes, steps being half the words, rounded up.
extern "C" __global__ void __launch_bounds__(256, 2)
    scan_mma_range(WORK_PARAMETERS, int most, HITS_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ __align__(16) u64 memory[];
    scan_tiled<Bits>(WORK, memory, Within{HITS, most});
}

extern "C" __global__ void __launch_bounds__(256, 2)
    scan_mma_range_naive(WORK_PARAMETERS, int most, HITS_PARAMETERS, LISTS_PARAMETERS) {
    scan_fragments<Bits>(WORK, Within{HITS, most});
}
