// Random codes for the benchmark, made where they are needed: a hundred million of them would take
// the host's generator minutes, and the same numbers come out on every machine.
//
//   bytes        8 per word, in order
//   operations   about 30 per word: two products of 64 bits, each of several IMAD
//   limit        memory bandwidth or multipliers, whichever is less; not measured
#include "types.cuh"

// words[i] is the (i + 1)-th number of SplitMix64 from `seed`: all 64 bits are fair and independent
// as far as any test tells.
extern "C" __global__ void __launch_bounds__(256)
    random_words(u64 seed, i64 n, u64* __restrict__ words) {
    const i64 step = i64{gridDim.x} * blockDim.x;
    for (i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
        u64 z = seed + static_cast<u64>(i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        words[i] = z ^ (z >> 31);
    }
}
