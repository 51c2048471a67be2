// A scan by products of bytes, on tensor cores that have no 1-bit ones (sm_100 and later).
//
// A row's bits b are bytes 0 and 1, a query's bits a are bytes 1 and -1, so that their product is
//
//   sum of b (1 - 2 a) = popc(b) - 2 popc(a & b) = H - popc(a),
//
// K = d bytes long: half of what complements would take. Accumulators begin with popc(a).
//
// In which order bits lie in K does not matter where both operands agree, so that a lane makes both
// from its 32 bits where they are: byte j of a register is bit 8 j or 8 j + 1, then all are shifted
// by two: four products a step. What is bit 8 j + 1 is not shifted at all: a row's byte is 2
// instead of 1 there, and a query's +-1, while it is +-2 elsewhere. So an accumulator's unit is 2.
//
// A lone word (d <= 64) is a step of two products: lanes 0 and 1 of four have the lower four bits
// of each byte of its halves, lanes 2 and 3 the upper ones.
//
//   a warp and step      64 products; 96 instructions for rows, 80 for queries, 12 loads
//   a pair               1 minimum in all; half of one where there are three-input minima: sm_100,
//                        not sm_120
//   limit                tensor cores: 216 instructions (sm_120: 51 for 16 products, and loads)
//                        in the 1024 clocks of 64 products
//
// Predicted for an RTX 5090 (170 SMs, 2.4 GHz; 838e12 operations/s by NVIDIA's whitepaper, 1024
// multiply-adds of bytes a clock and SM): 16 pairs a clock and SM at 64 bits, 8 at 128, 4 at 256,
// twice what POPC can do: 6.5 / 3.3 / 1.6e12 pairs/s. Derived; measured: not yet.
#pragma once

#include "scan_warp.cuh"

struct Bytes {
    static constexpr bool kLone = kWords == 1;
    static constexpr int kScale = 2, kUnroll = 1;

    static __device__ __forceinline__ int part() {
        return static_cast<int>(threadIdx.x % (kLone ? 2 : 4));
    }
    static __device__ __forceinline__ u32 bits(u32 x) {
        return kLone ? x >> threadIdx.x % 4 / 2 * 4 : x;
    }
    static __device__ __forceinline__ int start(const u64* row, int words) {
        int ones = 0;
#pragma unroll 1
        for (int w = 0; w < row_words(words); w++) ones += __popcll(row[w]);
        return kScale * ones;
    }

    template <int kM, int kN>
    static __device__ __forceinline__ void add_step(int (&d)[kM][4 * kN], u32 (&a)[kM][2],
                                                    u32 (&b)[kN], u32 there) {
        constexpr u32 kFirst = 0x01010101, kSecond = 0x02020202;
#pragma unroll 1  // registers are full of accumulators
        for (int i = 0; i < (kLone ? 2 : 4); i++) {
            MmaFragments f[kM];
#pragma unroll
            for (int m = 0; m < kM; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    // 2 or -2, 1 or -1: no byte carries into the next.
                    f[m].a[half] = (a[m][half] & kFirst) * (256 - 4) + (2 * kFirst & there);
                    f[m].a[2 + half] = (a[m][half] & kSecond) * 127 + (kFirst & there);
                    a[m][half] >>= 2;
                }
#pragma unroll
            for (int j = 0; j < kN; j++) {
#pragma unroll
                for (int m = 0; m < kM; m++) {
                    f[m].b[0] = b[j] & kFirst;
                    f[m].b[1] = b[j] & kSecond;
                    mma_bytes(f[m], d[m][4 * j], d[m][4 * j + 1], d[m][4 * j + 2], d[m][4 * j + 3]);
                }
                b[j] >>= 2;
            }
        }
    }
};
