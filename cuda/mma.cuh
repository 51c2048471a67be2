// Tensor cores by warp: two instructions, their fragments, and copies to shared memory beside them.
//
// Both add a product of 16 rows of A and 8 columns of B to d, and hold of each row and column 8
// registers of K. Lane l = 4 g + t holds (PTX ISA, "Matrix Fragments for mma.m16n8k256" and "for
// mma.m16n8k32")
//
//   a0, a1   registers t of rows g and g + 8 of A       d0, d1   row g, columns 2 t and 2 t + 1
//   a2, a3   registers 4 + t of the same rows           d2, d3   row g + 8, the same columns
//   b0, b1   registers t and 4 + t of column g of B
//
// mma.sync.m16n8k256, 1 bit, AND then count: d[m][n] += popc(a[m] & b[n]); a register is 32 bits.
// Native (BMMA) from sm_80 to sm_90; sm_100 and later emulate it.
//
// mma.sync.m16n8k32, signed bytes: d[m][n] += sum of a[m][k] b[n][k]; a register is four bytes.
// Native (IMMA) from sm_80 on.
#pragma once

#include "types.cuh"

struct MmaFragments {
    u32 a[4], b[2];
};

#ifdef DMIH_SHIM
struct ShimMma {
    const MmaFragments* from;
    int* d[4];
};
inline int shim_and_popc(u32 a, u32 b) {
    return __popc(a & b);
}
inline int shim_dot(u32 a, u32 b) {
    int sum = 0;
    for (int byte = 0; byte < 32; byte += 8)
        sum += static_cast<signed char>(a >> byte) * static_cast<signed char>(b >> byte);
    return sum;
}
template <int (*product)(u32, u32)>
SHIM_AT_ONCE void shim_mma(void* const* lanes) {
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            for (int part = 0; part < 4; part++) {
                const auto* row = static_cast<ShimMma*>(lanes[4 * g + part])->from;
                const auto* column = static_cast<ShimMma*>(lanes[4 * (2 * t + i % 2) + part])->from;
                for (int half = 0; half < 2; half++) {
                    *static_cast<ShimMma*>(lanes[lane])->d[i] +=
                        product(row->a[2 * half + i / 2], column->b[half]);
                }
            }
        }
    }
}
#define MMA(product, f, d0, d1, d2, d3)     \
    ShimMma mine{&f, {&d0, &d1, &d2, &d3}}; \
    ::shim::meet_warp_together(&shim_mma<&product>, &mine, ::shim::here())
#define MMA_AND_POPC(...) MMA(shim_and_popc, __VA_ARGS__)
#define MMA_BYTES(...) MMA(shim_dot, __VA_ARGS__)
#define COPY_ASYNC(to, from, bytes) shim_copy_async(to, from, bytes)
#define COPIES_COMMIT() ::shim::commit_copies()
#define COPIES_WAIT(left) ::shim::wait_for_copies(left)
#else
#define MMA(what, f, d0, d1, d2, d3)                                                \
    asm volatile("mma.sync.aligned." what                                           \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)                           \
                 : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]), "r"(f.b[1]))
#define MMA_AND_POPC(...) MMA("m16n8k256.row.col.s32.b1.b1.s32.and.popc", __VA_ARGS__)
#define MMA_BYTES(...) MMA("m16n8k32.row.col.s32.s8.s8.s32", __VA_ARGS__)
#define COPY_ASYNC(to, from, bytes)                                   \
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(   \
                     static_cast<u32>(__cvta_generic_to_shared(to))), \
                 "l"(from), "n"(bytes)                                \
                 : "memory")
#define COPIES_COMMIT() asm volatile("cp.async.commit_group;" ::: "memory")
#define COPIES_WAIT(left) asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory")
#endif

__device__ __forceinline__ void mma_and_popc(const MmaFragments& f, int& d0, int& d1, int& d2,
                                             int& d3) {
    MMA_AND_POPC(f, d0, d1, d2, d3);
}
__device__ __forceinline__ void mma_bytes(const MmaFragments& f, int& d0, int& d1, int& d2,
                                          int& d3) {
    MMA_BYTES(f, d0, d1, d2, d3);
}

// kBytes (8 or 16, aligned) from global to shared memory, under way until the group that it is
// committed with has been waited for.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
    COPY_ASYNC(to, from, kBytes);
}
__device__ __forceinline__ void copies_commit() {
    COPIES_COMMIT();
}
// For all groups of this thread but the kLeft latest.
template <int kLeft>
__device__ __forceinline__ void copies_wait() {
    COPIES_WAIT(kLeft);
}
