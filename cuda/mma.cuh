// Tensor cores by warp: one instruction, its fragments, and copies to shared memory beside it.
//
// mma.sync.m16n8k256, 1 bit, AND then count: d[m][n] += popc(a[m] & b[n]), 16 rows of A, 8 columns
// of B, 256 bits of each. Lane l = 4 g + t holds (PTX ISA, "Matrix Fragments for mma.m16n8k256")
//
//   a0, a1   bits [32 t, 32 t + 32) of rows g and g + 8 of A       d0, d1   row g, columns 2 t, 2 t
//   + 1 a2, a3   the same, 128 bits on                                 d2, d3   row g + 8 b0, b1
//   bits [32 t, 32 t + 32) of column g of B, and 128 bits on
//
// Native (BMMA) from sm_80 to sm_90; sm_100 and later emulate it.
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
inline void shim_mma(void* const* lanes) {
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            for (int part = 0; part < 4; part++) {
                const auto* row = static_cast<ShimMma*>(lanes[4 * g + part])->from;
                const auto* column = static_cast<ShimMma*>(lanes[4 * (2 * t + i % 2) + part])->from;
                for (int half = 0; half < 2; half++) {
                    *static_cast<ShimMma*>(lanes[lane])->d[i] +=
                        __popc(row->a[2 * half + i / 2] & column->b[half]);
                }
            }
        }
    }
}
#define MMA_AND_POPC(f, d0, d1, d2, d3)     \
    ShimMma mine{&f, {&d0, &d1, &d2, &d3}}; \
    ::shim::meet_warp_together(&shim_mma, &mine, ::shim::here())
#define COPY_ASYNC(to, from, bytes) shim_copy_async(to, from, bytes)
#define COPIES_COMMIT() ::shim::commit_copies()
#define COPIES_WAIT(left) ::shim::wait_for_copies(left)
#else
#define MMA_AND_POPC(f, d0, d1, d2, d3)                                   \
    asm volatile(                                                         \
        "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "      \
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
        : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)                          \
        : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "r"(f.b[0]), "r"(f.b[1]))
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
