// A scan by 1-bit products, on the tensor cores of sm_80 to sm_90: tensor.cuh says what is
// multiplied, scan_warp.cuh how the work is cut.
//
//   a pair and step      1/128 mma, 12 / 2048 loads, 1 minimum in all
//   limit                tensor cores, minima
//
// A step's fragment b1 is the complement of b0: K is laid out so that a lane's 32 bits of the
// complements are those 128 bits behind its bits themselves.
//
// Predicted for an A100 (108 SMs, 1.41 GHz, an mma every 8 clocks and quarter of an SM): tensor
// cores 9.7e12 pairs/s a step of 128 bits; minima 0.94 of a lane's 16 a clock as much again where
// they do not overlap: 5 to 9e12 pairs/s at up to 128 bits, half of it at 256. Naive: a tenth.
// Derived; measured: not yet.
#pragma once

#include "scan_warp.cuh"

struct Bits {
    static constexpr int kScale = 1, kUnroll = kSlice;

    static __device__ __forceinline__ int part() { return static_cast<int>(threadIdx.x % 4); }
    static __device__ __forceinline__ u32 bits(u32 x) { return x; }
    static __device__ __forceinline__ int start(const u64*, int) { return 0; }

    template <int kM, int kN>
    static __device__ __forceinline__ void add_step(int (&d)[kM][4 * kN], u32 (&a)[kM][2],
                                                    u32 (&b)[kN], u32 there) {
        MmaFragments f[kM];
#pragma unroll
        for (int m = 0; m < kM; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                f[m].a[half] = ~a[m][half] & there;
                f[m].a[2 + half] = a[m][half];
            }
#pragma unroll
        for (int j = 0; j < kN; j++)
#pragma unroll
            for (int m = 0; m < kM; m++) {
                f[m].b[0] = b[j];
                f[m].b[1] = ~b[j];
                mma_and_popc(f[m], d[m][4 * j], d[m][4 * j + 1], d[m][4 * j + 2], d[m][4 * j + 3]);
            }
    }
};
