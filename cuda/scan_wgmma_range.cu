// arch: sm_90a
// compile: kWords=0,1,2,4,8
//
// Range search on tensor cores, by warpgroup: scan_wgmma.cuh, with the collector of scan_range.cu.
#include "scan_wgmma.cuh"
#include "within.cuh"

// Of the slots [first, last). Grid of any size, kThreads threads, dynamic shared memory of
// 8 * (kStages * kStage + steps * 2 * kQueryPlane) bytes, steps being half the words, rounded up.
extern "C" __global__ void __launch_bounds__(384, 1)
    scan_wgmma_range(WORK_PARAMETERS, int most, HITS_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ __align__(128) u64 memory[];
    scan_pipelined(WORK, memory, Within{HITS, most});
}
