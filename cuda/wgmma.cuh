// Tensor cores by warpgroup (four warps, the first of a number divisible by four): the instruction,
// what it reads, and what orders it with the rest. sm_90a alone has it.
//
// wgmma.m64n256k256, 1 bit, AND then count: d[m][n] += popc(a[m] & b[n]), 64 rows of A, 256 columns
// of B, 256 bits of each, both in shared memory. It is asynchronous: the tensor cores read shared
// memory and write registers until wgmma_wait.
//
// Operands, without swizzle (PTX ISA, "Shared Memory Matrix Layout", "Strides", and "Matrix
// Descriptor Format"): a core matrix is 8 rows of 16 bytes, 128 bytes on end. A descriptor has, in
// units of 16 bytes, where the first one is (bits 0 to 13), how far the one of the next 16 bytes of
// K is ("leading", bits 16 to 29), and how far that of the next 8 rows is ("stride", bits 32 to
// 45); bits 62 and 63, the swizzle, are 0. So an operand is two planes, of the first and the second
// 128 bits of all rows, 16 bytes a row: whoever writes a row's 16 bytes a thread, and the tensor
// cores who read 8 rows at a time, all have 128 bytes on end, and no bank conflicts.
//
// Accumulators (PTX ISA, "Register Fragments", D of wgmma.m64nNk256): warp w of the four has rows
// [16 w, 16 w + 16), as tensor.cuh has them; d[4 j .. 4 j + 3] are of columns [8 j, 8 j + 8).
//
// Order: who writes operands by ordinary stores calls fence_proxy_async, and then arrives wherever
// the reader waits. Accumulators that were touched need wgmma_fence before the next instruction. A
// mbarrier (PTX ISA, "mbarrier") counts arrivals; after as many as it was made for, its phase ends.
#pragma once

#include "types.cuh"

constexpr int kAccumulators = 128;  // of a thread: 64 * 256 / 128

#ifdef DMIH_SHIM
#define SHARED_ADDRESS(p) ::shim::shared_address(p, ::shim::here())
#define MBARRIER_INIT(barrier, count) ::shim::mbarrier_init(barrier, count, ::shim::here())
#define MBARRIER_ARRIVE(barrier) ::shim::mbarrier_arrive(barrier, ::shim::here())
#define MBARRIER_WAIT(barrier, parity) ::shim::mbarrier_wait(barrier, parity, ::shim::here())
#define FENCE_PROXY_ASYNC() ::shim::fence_proxy_async()
#define REGISTERS(action, count)
#define WGMMA_FENCE() ::shim::wgmma_fence()
#define WGMMA(d, a, b, add) ::shim::wgmma(d, a, b, add, ::shim::here())
#define WGMMA_COMMIT() ::shim::wgmma_commit()
#define WGMMA_WAIT_ONE() ::shim::wgmma_wait(1, ::shim::here())
#define WGMMA_WAIT(d) (void)d, ::shim::wgmma_wait(0, ::shim::here())
#else
#define SHARED_ADDRESS(p) static_cast<u32>(__cvta_generic_to_shared(p))
#define MBARRIER_INIT(barrier, count)                                                      \
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SHARED_ADDRESS(barrier)), \
                 "r"(count)                                                                \
                 : "memory")
#define MBARRIER_ARRIVE(barrier)                                                           \
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SHARED_ADDRESS(barrier)) \
                 : "memory")
#define MBARRIER_WAIT(barrier, parity)                               \
    for (u32 done = 0; !done;)                                       \
    asm volatile(                                                    \
        "{\n.reg .pred done;\n"                                      \
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n" \
        "selp.u32 %0, 1, 0, done;\n}"                                \
        : "=r"(done)                                                 \
        : "r"(SHARED_ADDRESS(barrier)), "r"(parity)                  \
        : "memory")
#define REGISTERS(action, count) \
    asm volatile("setmaxnreg." action ".sync.aligned.u32 %0;" ::"n"(count))
#define FENCE_PROXY_ASYNC() asm volatile("fence.proxy.async.shared::cta;" ::: "memory")
#define D4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define D16(d, i) D4(d, i), D4(d, i + 4), D4(d, i + 8), D4(d, i + 12)
#define D64(d, i) D16(d, i), D16(d, i + 16), D16(d, i + 32), D16(d, i + 48)
#define D128(d) D64(d, 0), D64(d, 64)
#define WGMMA_FENCE() asm volatile("wgmma.fence.sync.aligned;" ::: "memory")
#define WGMMA(d, a, b, add)                                                                      \
    asm volatile(                                                                                \
        "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"                                        \
        "wgmma.mma_async.sync.aligned.m64n256k256.s32.b1.b1.and.popc {"                          \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                 \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "       \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "       \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "       \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "       \
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "       \
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
        "%111, "                                                                                 \
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "   \
        "%126, %127"                                                                             \
        "}, %128, %129, add;\n}"                                                                 \
        : D128(d)                                                                                \
        : "l"(a), "l"(b), "r"(add))
#define WGMMA_COMMIT() asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory")
#define WGMMA_WAIT_ONE() asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory")
#define WGMMA_WAIT(d) asm volatile("wgmma.wait_group.sync.aligned 0;" : D128(d)::"memory")
#endif

// Of an operand at `first`, which is aligned to 16 bytes; distances in bytes.
__device__ __forceinline__ u64 operand(const void* first, u32 leading, u32 stride) {
    const auto encoded = [](u32 bytes) { return u64{(bytes & 0x3FFFF) >> 4}; };
    return encoded(SHARED_ADDRESS(first)) | encoded(leading) << 16 | encoded(stride) << 32;
}

// By one thread; others see it after a __syncthreads.
__device__ __forceinline__ void mbarrier_init(u64* barrier, u32 count) {
    MBARRIER_INIT(barrier, count);
}
__device__ __forceinline__ void mbarrier_arrive(u64* barrier) {
    MBARRIER_ARRIVE(barrier);
}
// Until the phase of that parity, the first being 0, has ended. Before the first phase, waiting for
// parity 1 is no waiting.
__device__ __forceinline__ void mbarrier_wait(u64* barrier, u32 parity) {
    MBARRIER_WAIT(barrier, parity);
}
// A warpgroup gives registers up, or takes what others have given up: so many a thread.
template <int kCount>
__device__ __forceinline__ void fewer_registers() {
    REGISTERS("dec", kCount);
}
template <int kCount>
__device__ __forceinline__ void more_registers() {
    REGISTERS("inc", kCount);
}
__device__ __forceinline__ void fence_proxy_async() {
    FENCE_PROXY_ASYNC();
}
__device__ __forceinline__ void wgmma_fence() {
    WGMMA_FENCE();
}
// d = a * b, or with `add` d += a * b. By all threads of a warpgroup.
__device__ __forceinline__ void wgmma(int (&d)[kAccumulators], u64 a, u64 b, u32 add) {
    WGMMA(d, a, b, add);
}
__device__ __forceinline__ void wgmma_commit() {
    WGMMA_COMMIT();
}
// For all groups but the last one committed.
__device__ __forceinline__ void wgmma_wait_for_others() {
    WGMMA_WAIT_ONE();
}
// For all. d is named so that the compiler reads it no sooner.
__device__ __forceinline__ void wgmma_wait(int (&d)[kAccumulators]) {
    WGMMA_WAIT(d);
}
