// What a GPU can do at most: the limits that searches are held against, measured in the same run.
//
//                     popc_rate          read_memory            read_sectors
//   per               step of a chain    16 bytes of an array   sector of 32 bytes
//   bytes             none               16, in order           32 (4 of them are used)
//   POPC              1                  none                   none
//   other             1 IMAD, 1/2 IADD3  4 IADD, 1/4 of a loop  about 10
//   limit             POPC units         memory bandwidth       requests to memory
//
// Derived limits on an H200 (132 SMs, 1.98 GHz): a multiprocessor starts 16 POPC a clock, and 64
// IMAD or 128 instructions of all kinds, so that up to 8 instructions a POPC leave its units the
// limit: 4.2e12 POPC/s. (The loop compiled for sm_90a by NVRTC 13.5 has 84 for 32 POPC; for sm_75
// to sm_120 it is much the same.) Memory: 4.3e12 bytes/s as copies move them. Sectors: 25e9/s.
// Nothing here is measured yet.
//
// Each kernel returns a sum of all that it computed or read, so that nothing is optimised away and
// a test can say whether it was done.
#include "sums.cuh"

namespace {

constexpr int kChains = 8;    // POPCs that a thread has under way
constexpr int kInFlight = 8;  // loads that a thread has under way

}  // namespace

// Adds the bits of all steps of kChains chains x -> 747796405 x + 2891336453 a thread to sum[0].
// Thread t begins its chain j at kChains t + j. Whole warps.
extern "C" __global__ void __launch_bounds__(256) popc_rate(int steps, u64* __restrict__ sum) {
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    u32 x[kChains], bits[kChains];
#pragma unroll
    for (int j = 0; j < kChains; j++) {
        x[j] = kChains * thread + static_cast<u32>(j);
        bits[j] = 0;
    }
    for (int step = 0; step < steps; step++) {
#pragma unroll
        for (int j = 0; j < kChains; j++) {
            x[j] = 747796405u * x[j] + 2891336453u;
            bits[j] += static_cast<u32>(__popc(x[j]));
        }
    }
    u64 mine = 0;
#pragma unroll
    for (int j = 0; j < kChains; j++) mine += bits[j];
    add_to(sum, mine);
}

// Adds the n vectors' words to sum[0]. Whole warps. The loads are plain ones: the benchmark also
// uses this to fill the L2 cache, where streaming loads would give way to what is there.
extern "C" __global__ void __launch_bounds__(256)
    read_memory(const uint4* __restrict__ data, i64 n, u64* __restrict__ sum) {
    const i64 step = i64{gridDim.x} * blockDim.x;
    u64 mine = 0;
    i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x;
    for (; i + (kInFlight - 1) * step < n; i += kInFlight * step) {
        uint4 loaded[kInFlight];
#pragma unroll
        for (int j = 0; j < kInFlight; j++) loaded[j] = data[i + j * step];
#pragma unroll
        for (int j = 0; j < kInFlight; j++) {
            mine += u64{loaded[j].x} + loaded[j].y + loaded[j].z + loaded[j].w;
        }
    }
    for (; i < n; i += step) mine += u64{data[i].x} + data[i].y + data[i].z + data[i].w;
    add_to(sum, mine);
}

// Reads kInFlight * rounds sectors a thread of the n in data, n < 2^32, and adds their first words
// to sum[0]. Thread t's i-th sector is floor(n * mixed(T i + t) / 2^32), T being all threads. Whole
// warps.
extern "C" __global__ void __launch_bounds__(256)
    read_sectors(const uint4* __restrict__ data, u32 n, int rounds, u64* __restrict__ sum) {
    const u32 threads = gridDim.x * blockDim.x;
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    u64 mine = 0;
    for (int round = 0; round < rounds; round++) {
        u32 loaded[kInFlight];
#pragma unroll
        for (int j = 0; j < kInFlight; j++) {
            const uint4* sector = data + 2 * i64{__umulhi(mixed(at), n)};
            loaded[j] = sector->x;
            at += threads;
        }
#pragma unroll
        for (int j = 0; j < kInFlight; j++) mine += loaded[j];
    }
    add_to(sum, mine);
}
