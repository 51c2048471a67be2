// NEON (every 64-bit ARM): 128 codes per plane. A full adder is three operations, because BSL
// chooses bits: where a and b differ the majority is c, elsewhere a. See fold.hpp.
#include <arm_neon.h>

#include "fold.hpp"
#include "neon_rows.hpp"

namespace dmih::simd {
namespace {

struct Neon : Plain<Neon, 2> {
    using reg = uint64x2_t;
    static constexpr int lanes = 2;
    static reg load(const uint64_t* p) { return vld1q_u64(p); }
    static reg load_bytes(const char* p) {
        return vreinterpretq_u64_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
    }
    static reg load_unaligned(const uint64_t* p) { return vld1q_u64(p); }
    static void store(uint64_t* p, reg x) { vst1q_u64(p, x); }
    static void store_unaligned(uint64_t* p, reg x) { vst1q_u64(p, x); }
    static reg broadcast(uint64_t x) { return vdupq_n_u64(x); }
    static reg and_(reg a, reg b) { return vandq_u64(a, b); }
    static reg or_(reg a, reg b) { return vorrq_u64(a, b); }
    static reg xor_(reg a, reg b) { return veorq_u64(a, b); }
    template <int N>
    static reg shr(reg a) {
        return vshrq_n_u64(a, N);
    }
    template <int N>
    static reg shl(reg a) {
        return vshlq_n_u64(a, N);
    }
    static reg majority(reg a, reg b, reg c) { return vbslq_u64(xor_(a, b), c, a); }
    static void full_add(reg a, reg b, reg c, reg& sum, reg& carry) {
        const reg half = xor_(a, b);
        carry = vbslq_u64(half, c, a);
        sum = xor_(half, c);
    }
    static uint32_t nonzero_lanes(reg a) {
        return static_cast<uint32_t>(vgetq_lane_u64(a, 0) != 0) |
               static_cast<uint32_t>(vgetq_lane_u64(a, 1) != 0) << 1;
    }
    static bool all_ones(reg a) { return vminvq_u32(vreinterpretq_u32_u64(a)) == ~uint32_t{0}; }
};

}  // namespace

const Kernels kNeon{"neon",
                    1,
                    Neon::lanes,
                    rows_neon,
                    Fold<Neon>::full_adds,
                    42,
                    Fold<Neon>::make_planes,
                    Fold<Neon>::make_query,
                    Fold<Neon>::fold,
                    nullptr,
                    nullptr,
                    Fold<Neon>::nearest,
                    distances_neon,
                    kth_smallest_plain,
                    select_neon};

}  // namespace dmih::simd
