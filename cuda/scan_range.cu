// compile: kWords=0,1,2,4,8
//
// Range search by comparing everything: scan.cuh with a bound that stays. Costs as scan_knn.cu's,
// and for each answer 8 bytes written and an atomic on one counter, which L2 does at one a clock or
// so: 1e9 answers/s (derived, not measured).
#include "scan.cuh"
#include "within.cuh"

// All codes of the slots [first, last) at a distance of at most `most`. Launched as scan_knn.
extern "C" __global__ void __launch_bounds__(256, 4)
    scan_range(WORK_PARAMETERS, int most, HITS_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ u64 tile[];
    scan(WORK, tile, Within{HITS, most});
}

extern "C" __global__ void __launch_bounds__(256, 4)
    scan_range_naive(WORK_PARAMETERS, int most, HITS_PARAMETERS, LISTS_PARAMETERS) {
    scan_naive(WORK, Within{HITS, most});
}
