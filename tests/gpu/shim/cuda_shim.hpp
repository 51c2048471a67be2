// CUDA C++ as the kernels use it, for a CPU compiler. Where CUDA leaves a result undefined, the
// shim gives random bits or an error.
#pragma once

#include <algorithm>  // for what launcher.py writes
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "runtime.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __launch_bounds__(...)  // read from the source text by launcher.py

#define threadIdx (::shim::self->index)
#define blockIdx (::shim::block_index)
#define blockDim (::shim::block_size)
#define gridDim (::shim::grid_size)
constexpr int warpSize = 32;

// Vector types.

#define SHIM_VECTOR2(name, scalar)                \
    struct alignas(2 * sizeof(scalar)) name {     \
        scalar x, y;                              \
    };                                            \
    inline name make_##name(scalar x, scalar y) { \
        return {x, y};                            \
    }
#define SHIM_VECTOR4(name, scalar)                                    \
    struct alignas(16) name {                                         \
        scalar x, y, z, w;                                            \
    };                                                                \
    inline name make_##name(scalar x, scalar y, scalar z, scalar w) { \
        return {x, y, z, w};                                          \
    }
SHIM_VECTOR2(int2, int)
SHIM_VECTOR2(uint2, unsigned)
SHIM_VECTOR2(float2, float)
SHIM_VECTOR2(longlong2, long long)
SHIM_VECTOR2(ulonglong2, unsigned long long)
SHIM_VECTOR4(int4, int)
SHIM_VECTOR4(uint4, unsigned)
SHIM_VECTOR4(float4, float)
#undef SHIM_VECTOR2
#undef SHIM_VECTOR4

// Arithmetic.

// Both of one type: what CUDA makes of an int and an unsigned is seldom what was meant.
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __clz(unsigned x) {
    return x ? __builtin_clz(x) : 32;
}
inline int __clzll(unsigned long long x) {
    return x ? __builtin_clzll(x) : 64;
}
inline int __ffs(unsigned x) {
    return __builtin_ffs(static_cast<int>(x));
}
inline int __ffsll(unsigned long long x) {
    return __builtin_ffsll(static_cast<long long>(x));
}
inline unsigned long long __brevll(unsigned long long x) {
    unsigned long long reversed = 0;
    for (int i = 0; i < 64; i++) reversed |= (x >> i & 1) << (63 - i);
    return reversed;
}
inline unsigned __brev(unsigned x) {
    return static_cast<unsigned>(__brevll(x) >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    const auto both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    const auto both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector,
                            shim::Site at = shim::here()) {
    if (selector & 0x8888) shim::fail("__byte_perm: bit 3 of a selector's digit is set", at);
    const auto bytes = static_cast<unsigned long long>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i;
    }
    return result;
}

// What the PTX instruction lop3.b32 computes: bit 4a + 2b + c of the table, for all bits at once.
inline unsigned shim_lop3(unsigned a, unsigned b, unsigned c, unsigned table) {
    unsigned result = 0;
    for (unsigned i = 0; i < 8; i++) {
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    }
    return result;
}

// Memory.

#define SHIM_LOAD(name)        \
    template <class T>         \
    T name(const T* address) { \
        return *address;       \
    }
SHIM_LOAD(__ldg)
SHIM_LOAD(__ldca)
SHIM_LOAD(__ldcs)
#undef SHIM_LOAD
template <class T>
SHIM_AT_ONCE T __ldcg(const T* address) {
    shim::before_access(address, sizeof(T), shim::Access::atomic);
    return *address;
}
#define SHIM_STORE(name)                                 \
    template <class T>                                   \
    void name(T* address, std::common_type_t<T> value) { \
        *address = value;                                \
    }
SHIM_STORE(__stcg)
SHIM_STORE(__stcs)
#undef SHIM_STORE
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {
    shim::sleep();
}
[[noreturn]] inline void __trap(shim::Site at = shim::here()) {
    shim::fail("__trap()", at);
}
inline long long clock64() {
    static long long ticks;
    return ticks++;
}

// Atomics, for the types that CUDA has them for: uint64_t is not one of them, unsigned long long
// is. One operation at a time runs anyway; what is tried is which thread comes first.

#define SHIM_ATOMIC(name, with_float, replacement)                             \
    template <class T>                                                         \
    SHIM_AT_ONCE T name(T* address, std::common_type_t<T> value) {             \
        static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || \
                          std::is_same_v<T, unsigned long long> ||             \
                          (with_float && std::is_same_v<T, float>),            \
                      #name " is not defined for this type");                  \
        shim::before_access(address, sizeof(T), shim::Access::atomic);         \
        const T old = *address;                                                \
        *address = replacement;                                                \
        return old;                                                            \
    }
template <class T>
T shim_sum(T a, T b) {
    if constexpr (std::is_same_v<T, int>) {  // wraps around
        return static_cast<int>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
    } else {
        return a + b;
    }
}
SHIM_ATOMIC(atomicAdd, true, shim_sum(old, value))
SHIM_ATOMIC(atomicExch, true, value)
SHIM_ATOMIC(atomicMin, false, min<T>(old, value))
SHIM_ATOMIC(atomicMax, false, max<T>(old, value))
SHIM_ATOMIC(atomicAnd, false, old& value)
SHIM_ATOMIC(atomicOr, false, old | value)
SHIM_ATOMIC(atomicXor, false, old ^ value)
#undef SHIM_ATOMIC
inline int atomicSub(int* address, int value) {
    return atomicAdd(address, shim_sum(~value, 1));
}
inline unsigned atomicSub(unsigned* address, unsigned value) {
    return atomicAdd(address, 0 - value);
}
template <class T>
SHIM_AT_ONCE T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                      std::is_same_v<T, unsigned long long> || std::is_same_v<T, unsigned short>,
                  "atomicCAS is not defined for this type");
    shim::before_access(address, sizeof(T), shim::Access::atomic);
    const T old = *address;
    if (old == expected) *address = value;
    return old;
}

// What cp.async does. Reads both ends at once, so that sanitizers see them.
inline void shim_copy_async(void* to, const void* from, unsigned bytes,
                            shim::Site at = shim::here()) {
    (void)*static_cast<const volatile char*>(from);
    (void)static_cast<const volatile char*>(from)[bytes - 1];
    (void)static_cast<const volatile char*>(to)[bytes - 1];
    shim::copy_async(to, from, bytes, at);
}

// Barriers.

inline void __syncthreads(shim::Site at = shim::here()) {
    shim::meet_block(shim::Op::syncthreads, false, at);
}
inline int __syncthreads_count(int predicate, shim::Site at = shim::here()) {
    return static_cast<int>(shim::meet_block(shim::Op::syncthreads_count, predicate != 0, at));
}
inline int __syncthreads_and(int predicate, shim::Site at = shim::here()) {
    return static_cast<int>(shim::meet_block(shim::Op::syncthreads_and, predicate != 0, at));
}
inline int __syncthreads_or(int predicate, shim::Site at = shim::here()) {
    return static_cast<int>(shim::meet_block(shim::Op::syncthreads_or, predicate != 0, at));
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFF, shim::Site at = shim::here()) {
    shim::meet_warp(shim::Op::syncwarp, mask, 0, 0, 32, at);
}

// Operations of a warp.

// Only the caller is sure to be active: on a GPU, too, no more than that may be relied on.
inline unsigned __activemask() {
    return 1u << shim::self->lane;
}

template <class T>
uint64_t shim_bits(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "4- and 8-byte types only");
    static_assert(std::is_arithmetic_v<T>, "numbers only, as in CUDA");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T>
T shim_value(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

#define SHIM_SHUFFLE(name, op, type)                                                              \
    template <class T>                                                                            \
    T name(unsigned mask, T value, type argument, int width = 32, shim::Site at = shim::here()) { \
        return shim_value<T>(shim::meet_warp(shim::Op::op, mask, shim_bits(value),                \
                                             static_cast<uint32_t>(argument),                     \
                                             static_cast<unsigned>(width), at));                  \
    }
SHIM_SHUFFLE(__shfl_sync, shfl, int)
SHIM_SHUFFLE(__shfl_up_sync, shfl_up, unsigned)
SHIM_SHUFFLE(__shfl_down_sync, shfl_down, unsigned)
SHIM_SHUFFLE(__shfl_xor_sync, shfl_xor, int)
#undef SHIM_SHUFFLE

inline unsigned __ballot_sync(unsigned mask, int predicate, shim::Site at = shim::here()) {
    return static_cast<unsigned>(
        shim::meet_warp(shim::Op::ballot, mask, predicate != 0, 0, 32, at));
}
inline int __all_sync(unsigned mask, int predicate, shim::Site at = shim::here()) {
    return static_cast<int>(shim::meet_warp(shim::Op::all, mask, predicate != 0, 0, 32, at));
}
inline int __any_sync(unsigned mask, int predicate, shim::Site at = shim::here()) {
    return static_cast<int>(shim::meet_warp(shim::Op::any, mask, predicate != 0, 0, 32, at));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, shim::Site at = shim::here()) {
    return static_cast<unsigned>(
        shim::meet_warp(shim::Op::match_any, mask, shim_bits(value), 0, 32, at));
}

// For int and unsigned; the bitwise ones for unsigned only. sm_80 and later.
#define SHIM_REDUCE(name, op, with_int)                                                          \
    template <class T>                                                                           \
    T name(unsigned mask, T value, shim::Site at = shim::here()) {                               \
        static_assert(std::is_same_v<T, unsigned> || (with_int && std::is_same_v<T, int>),       \
                      #name " is not defined for this type");                                    \
        return static_cast<T>(                                                                   \
            shim::meet_warp(shim::Op::op, mask, shim_bits(value), std::is_signed_v<T>, 32, at)); \
    }
SHIM_REDUCE(__reduce_add_sync, reduce_add, true)
SHIM_REDUCE(__reduce_min_sync, reduce_min, true)
SHIM_REDUCE(__reduce_max_sync, reduce_max, true)
SHIM_REDUCE(__reduce_and_sync, reduce_and, false)
SHIM_REDUCE(__reduce_or_sync, reduce_or, false)
SHIM_REDUCE(__reduce_xor_sync, reduce_xor, false)
#undef SHIM_REDUCE

// The table of kernels that launcher.py writes at the end of the source.

namespace shim {

template <class T>
constexpr char kind_of() {
    if (std::is_same_v<T, bool>) return 'b';
    if (std::is_floating_point_v<T>) return 'f';
    if (std::is_integral_v<T>) return std::is_signed_v<T> ? 'i' : 'u';
    return 'V';
}

template <class T>
constexpr Type type_of() {
    if constexpr (std::is_pointer_v<T>) {
        using Pointee = std::remove_cv_t<std::remove_pointer_t<T>>;
        return {kind_of<Pointee>(), 1, std::is_const_v<std::remove_pointer_t<T>>, alignof(Pointee),
                sizeof(Pointee)};
    } else {
        return {kind_of<T>(), 0, 1, alignof(T), sizeof(T)};
    }
}

template <class T>
T value_of(const Argument& argument) {
    if constexpr (std::is_pointer_v<T>) {
        return static_cast<T>(argument.data);
    } else {
        return *static_cast<T*>(argument.data);
    }
}

template <auto kernel>
struct Entry;

template <class... P, void (*kernel)(P...)>
struct Entry<kernel> {
    static constexpr Type parameters[] = {type_of<std::remove_cv_t<P>>()..., Type{}};

    template <size_t... i>
    static void unpack(Argument* arguments, std::index_sequence<i...>) {
        kernel(value_of<std::remove_cv_t<P>>(arguments[i])...);
    }
    static void invoke(Argument* arguments) { unpack(arguments, std::index_sequence_for<P...>()); }
    static constexpr Kernel describe(const char* name, unsigned max_threads) {
        return {name, invoke, parameters, sizeof...(P), max_threads};
    }
};

}  // namespace shim
