// Any processor: the compiler's generic vectors, which become SSE2 or NEON registers. See fold.hpp.
#include "fold.hpp"
#include "rows.hpp"

namespace dmih::simd {
namespace {

struct Generic : Plain<Generic, 2> {
    using reg = uint64_t __attribute__((vector_size(16)));
    static constexpr int lanes = 2;
    static reg load(const uint64_t* p) { return *reinterpret_cast<const reg*>(p); }
    static reg load_bytes(const char* p) { return *reinterpret_cast<const reg*>(p); }
    static reg load_unaligned(const uint64_t* p) { return reg{p[0], p[1]}; }
    static void store(uint64_t* p, reg x) { *reinterpret_cast<reg*>(p) = x; }
    static void store_unaligned(uint64_t* p, reg x) {
        p[0] = x[0];
        p[1] = x[1];
    }
    static reg broadcast(uint64_t x) { return reg{x, x}; }
    static reg and_(reg a, reg b) { return a & b; }
    static reg or_(reg a, reg b) { return a | b; }
    static reg xor_(reg a, reg b) { return a ^ b; }
    template <int N>
    static reg shr(reg a) {
        return a >> N;
    }
    template <int N>
    static reg shl(reg a) {
        return a << N;
    }
    static reg majority(reg a, reg b, reg c) { return (a & b) | ((a ^ b) & c); }
    static void full_add(reg a, reg b, reg c, reg& sum, reg& carry) {
        const reg half = a ^ b;
        carry = (a & b) | (half & c);
        sum = half ^ c;
    }
    static uint32_t nonzero_lanes(reg a) {
        return static_cast<uint32_t>(a[0] != 0) | static_cast<uint32_t>(a[1] != 0) << 1;
    }
    static bool all_ones(reg a) { return (a[0] & a[1]) == ~0ull; }
};

}  // namespace

const Kernels kPortable{"portable",
                        0,
                        Generic::lanes,
                        rows_popcount,
                        Fold<Generic>::full_adds,
                        42,
                        Fold<Generic>::make_planes,
                        Fold<Generic>::make_query,
                        Fold<Generic>::fold,
                        nullptr,
                        nullptr,
                        Fold<Generic>::nearest,
                        distances_popcount,
                        kth_smallest_plain,
                        select_plain};

}  // namespace dmih::simd
