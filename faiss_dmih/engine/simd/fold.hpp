// Bit-sliced Hamming comparison, "fold": the batch scan kernel, written once for every register.
//
//   Question   which of 64 * lanes codes are within distance t of a query?
//   Layout     bit plane i holds bit i of all the block's codes. Per plane and query bit,
//              plane XOR bit says who differs; the distance is the sum of 64 such planes.
//   Counting   carry-save adders: a full adder takes three planes of weight w to one of weight w
//              and one of weight 2w. 64 planes need 64 - popcount adders, whatever their shape.
//   Tabulation the first rank of adders depends on the query only through three bits, so all its
//   (the four  outcomes are made once per block and shared by the batch: per triple of bits the sum
//   Russians)  and its complement and the 8 majorities, 10 planes. A query *selects* its planes by
//              address: 64 XORs and 21 of 63 adders are gone.
//   Threshold  the adders' six running planes (weights 1..32) start at 63 - t mod 64 instead of 0:
//              the planes carried out at weight 64 then count to more than t div 64 exactly for the
//              codes farther than t. With d <= 64 the comparison costs nothing at all.
//
// Per word: inputs 22 of weight 1 (21 triple sums, the odd bit) and 21 of weight 2, hence
// 11 + 16 + 8 + 4 + 2 + 1 = 42 adders, each two VPTERNLOG with AVX-512, five operations with AVX2.
//
// Cost for 512 codes x 64 bits, AVX-512, per query:
//   84 ternary-logic operations on ports 0 and 5: 42 cycles, 12.2 distances per cycle.
//   43 plane loads + 43 address loads + 6 broadcasts on two load ports: 46 cycles.
//   Front end, four operations a cycle: about 180, 45 cycles. The three limits meet.
// make_planes costs about as much as 20..30 queries, so the kernel wants batches. Measured on a
// Xeon of 2.5 GHz (Cascade Lake), 2026-11-22: docs/algorithm.md, section 3.
#pragma once

#include <cstring>

#include "kernels.hpp"

// The adders are straight-line code only if every call below is inlined.
#define DMIH_INLINE __attribute__((always_inline)) inline

namespace dmih::simd {

// Of each 2J bits the low ones.
template <int J>
inline constexpr uint64_t kLowBits = ~0ull / ((1ull << J) + 1);

// Bit i of s as a whole word, for all s < 64: the running planes' start is loaded, not computed.
struct StartPlanes {
    uint64_t bit[64][8];
    constexpr StartPlanes() : bit() {
        for (int s = 0; s < 64; ++s)
            for (int i = 0; i < 8; ++i) bit[s][i] = (s >> i) & 1 ? ~0ull : 0;
    }
};
inline constexpr StartPlanes kStartPlanes;

// What every register can do by its bit operations; D is the type derived from it, R its register.
template <class D, int kLanes>
struct Plain {
    static constexpr int kSplit = 1;  // words of a code that `split` takes at once, at most

    // Words w, below n, of 64 * lanes codes of `words` words: those of codes r * lanes and the next
    // go to out + r * row + w * column.
    static void split(const uint64_t* codes, int words, int n, uint64_t* out, size_t row,
                      size_t column) {
        for (int w = 0; w < n; ++w)
            for (int r = 0; r < 64; ++r)
                for (int i = 0; i < kLanes; ++i)
                    out[r * row + w * column + i] = codes[size_t(r * kLanes + i) * words + w];
    }

    // The bits of each 2J that are J apart: the high ones of a against the low ones of b.
    template <int J, class R>
    DMIH_INLINE static void exchange(R& a, R& b) {
        const R t = D::and_(D::xor_(D::template shr<J>(a), b), D::broadcast(kLowBits<J>));
        a = D::xor_(a, D::template shl<J>(t));
        b = D::xor_(b, t);
    }

    // The planes of a triple: the sum and its complement; the majorities, of a complemented where
    // v has bit 0, of b where it has bit 1, of c where it has bit 2.
    template <class R>
    DMIH_INLINE static void triple(R a, R b, R c, R (&plane)[kPlanesPerTriple]) {
        const R ones = D::broadcast(~0ull);
        const R na = D::xor_(a, ones), nb = D::xor_(b, ones), nc = D::xor_(c, ones);
        R* const maj = plane + 2;
        D::full_add(a, b, c, plane[0], maj[0]);
        plane[1] = D::xor_(plane[0], ones);
        maj[1] = D::majority(na, b, c);
        maj[2] = D::majority(a, nb, c);
        maj[4] = D::majority(a, b, nc);
        // That of complements is the complement of the majority.
        for (int v : {0, 1, 2, 4}) maj[7 - v] = D::xor_(maj[v], ones);
    }
};

// V: a register type with an internal name in each instruction set's file, so that nothing here is
// shared between files compiled with different flags. It has lanes, load, store, full_add, and the
// bit operations used below; `exchange`, `split` and `triple` if it can do better than Plain does.
template <class V>
struct Fold {
    using R = typename V::reg;
    static constexpr int kPlaneBytes = V::lanes * 8;

    // 64 x 64 bit transpose in every lane (Hacker's Delight 7-3): row r, bit i <-> row i, bit r.
    // Six steps exchange blocks of 32, 16, .. 1 bits between rows as far apart; three at a time on
    // eight rows in registers, so that everything is loaded and stored twice instead of six times.
    // x[i] is row base + i * kStride.
    template <int kStride>
    DMIH_INLINE static void exchange_eight(R (&x)[8]) {
        for (int i = 0; i < 4; ++i) V::template exchange<4 * kStride>(x[i], x[i + 4]);
        for (int i : {0, 1, 4, 5}) V::template exchange<2 * kStride>(x[i], x[i + 2]);
        for (int i = 0; i < 8; i += 2) V::template exchange<kStride>(x[i], x[i + 1]);
    }

    static void transpose(const uint64_t* codes, uint64_t* rows) {
        R x[8];
        for (int base = 0; base < 8; ++base) {
            for (int i = 0; i < 8; ++i) x[i] = V::load_unaligned(codes + (base + 8 * i) * V::lanes);
            exchange_eight<8>(x);
            for (int i = 0; i < 8; ++i) V::store(rows + (base + 8 * i) * V::lanes, x[i]);
        }
        for (int base = 0; base < 64; base += 8) {
            for (int i = 0; i < 8; ++i) x[i] = V::load(rows + (base + i) * V::lanes);
            exchange_eight<1>(x);
            for (int i = 0; i < 8; ++i) V::store(rows + (base + i) * V::lanes, x[i]);
        }
    }

    static void make_planes(const uint64_t* codes, int words, uint64_t* planes) {
        // A line more than the rows take: multiples of 4 KB would meet in one set of the cache.
        constexpr size_t kColumn = 64 * V::lanes + 8;
        alignas(64) uint64_t rows[V::kSplit][kColumn];
        for (int first = 0; first < words; first += V::kSplit) {
            const int n = words - first < V::kSplit ? words - first : V::kSplit;
            if (words > 1) V::split(codes + first, words, n, rows[0], V::lanes, kColumn);
            for (int w = 0; w < n; ++w)
                planes_of(words > 1 ? rows[w] : codes, rows[w],
                          planes + size_t(first + w) * kPlanesPerWord * V::lanes);
        }
    }

    static void make_columns(const uint64_t* codes, int words, uint64_t* columns) {
        if (words == 1) {
            std::memcpy(columns, codes, 64 * V::lanes * sizeof(uint64_t));
            return;
        }
        for (int first = 0; first < words; first += V::kSplit)
            V::split(codes + first, words, words - first < V::kSplit ? words - first : V::kSplit,
                     columns + first * V::lanes, size_t(words) * V::lanes, V::lanes);
    }

    // Of one word of each code; `rows`, which may be where they are, is scratch.
    static void planes_of(const uint64_t* codes, uint64_t* rows, uint64_t* out) {
        transpose(codes, rows);
        for (int t = 0; t < kTriples; ++t, out += kPlanesPerTriple * V::lanes) {
            R plane[kPlanesPerTriple];
            V::triple(V::load(rows + (3 * t) * V::lanes), V::load(rows + (3 * t + 1) * V::lanes),
                      V::load(rows + (3 * t + 2) * V::lanes), plane);
            for (int p = 0; p < kPlanesPerTriple; ++p) V::store(out + p * V::lanes, plane[p]);
        }
        const R last = V::load(rows + 63 * V::lanes);
        V::store(out, last);
        V::store(out + V::lanes, V::xor_(last, V::broadcast(~0ull)));
    }

    // Independent chains, enough to hide the latency of each.
    static uint64_t full_adds(int rounds) {
        R a[kAddsPerRound], b[kAddsPerRound];
        for (int i = 0; i < kAddsPerRound; ++i) {
            a[i] = V::broadcast(static_cast<uint64_t>(rounds) << i);
            b[i] = V::broadcast(~static_cast<uint64_t>(rounds) << i);
        }
        const R c = V::broadcast(0x9E3779B97F4A7C15ull);
        for (int r = 0; r < rounds; ++r)
            for (int i = 0; i < kAddsPerRound; ++i) {
                R sum, carry;
                V::full_add(a[i], b[i], c, sum, carry);
                a[i] = sum;
                b[i] = carry;
            }
        R all = V::broadcast(0);
        for (int i = 0; i < kAddsPerRound; ++i) all = V::xor_(all, V::xor_(a[i], b[i]));
        uint64_t out[V::lanes];
        V::store_unaligned(out, all);
        return out[0];
    }

    // The running planes and the adders over one word, unrolled by the compiler: carry<level, j> is
    // the j-th plane carried out of the adders of weight 2^level.
    struct Adders {
        R acc[6];
        const char* planes;
        const FoldWord* at;

        template <int I>
        DMIH_INLINE R sum_input() const {
            return V::load_bytes(planes + at->sum[I]);
        }

        // Inputs of weight 2, in an order that keeps few planes alive: each carry of the ones,
        // then two majorities.
        template <int I>
        DMIH_INLINE R twos_input() {
            if constexpr (I % 3 == 0) {
                return carry<0, I / 3>();
            } else {
                return V::load_bytes(planes + at->carry[2 * (I / 3) + I % 3 - 1]);
            }
        }

        template <int Level, int J>
        DMIH_INLINE R carry() {
            R x, y;
            if constexpr (Level == 0) {
                x = sum_input<2 * J>();
                y = sum_input<2 * J + 1>();
            } else if constexpr (Level == 1) {
                x = twos_input<2 * J>();
                y = twos_input<2 * J + 1>();
            } else {
                x = carry<Level - 1, 2 * J>();
                y = carry<Level - 1, 2 * J + 1>();
            }
            R sum, out;
            V::full_add(acc[Level], x, y, sum, out);
            acc[Level] = sum;
            return out;
        }
    };

    // kHigh planes count the carries of weight 64 (kHigh = ceil(log2(words))), starting at
    // 2^kHigh - 1 - bound / 64, so that a plane is carried out of them exactly for the codes that
    // are too far: `far`. At most once per code, because words <= 2^kHigh.
    template <int kHigh>
    static int fold_words(const uint64_t* planes, int words, const FoldWord* queries,
                          const int32_t* bound, const uint32_t* list, int n_list, BlockHit* hits) {
        int found = 0;
        for (int i = 0; i < n_list; ++i) {
            const uint32_t q = list[i];
            if (bound[q] < 0) continue;
            const uint32_t start = 63u - (static_cast<uint32_t>(bound[q]) & 63u);
            const int high = static_cast<int>((1u << kHigh) - 1) - (bound[q] >> 6);
            R far = V::broadcast(0);
            if (high >= 0) {  // otherwise the bound is at least 64 * words: every code is within
                Adders adders;
                adders.planes = reinterpret_cast<const char*>(planes);
                adders.at = queries + size_t(q) * words;
                for (int p = 0; p < 6; ++p)
                    adders.acc[p] = V::broadcast(kStartPlanes.bit[start][p]);
                R count[kHigh == 0 ? 1 : kHigh];
                for (int p = 0; p < kHigh; ++p) count[p] = V::broadcast(kStartPlanes.bit[high][p]);
                for (int w = 0; w < words; ++w) {
                    R out = adders.template carry<5, 0>();
                    for (int p = 0; p < kHigh; ++p) {
                        const R next = V::and_(count[p], out);
                        count[p] = V::xor_(count[p], out);
                        out = next;
                    }
                    far = V::or_(far, out);
                    if (kHigh > 0 && V::all_ones(far)) break;
                    adders.planes += kPlanesPerWord * kPlaneBytes;
                    ++adders.at;
                }
            }
            if (V::all_ones(far)) continue;
            const R within = V::xor_(far, V::broadcast(~0ull));
            hits[found].query = q;
            hits[found].lanes = V::nonzero_lanes(within);
            V::store_unaligned(hits[found].mask, within);
            ++found;
        }
        return found;
    }

    // The same sum without a threshold: all planes of the distance, then its minimum over the codes
    // by bisection from the highest plane down. `gone` are the codes already known to be farther.
    template <int kHigh>
    static void nearest_words(const uint64_t* planes, int words, const FoldWord* queries, int nq,
                              const uint64_t* valid, uint16_t* distance, uint16_t* place) {
        const R ones = V::broadcast(~0ull);
        for (int q = 0; q < nq; ++q, queries += words) {
            Adders adders;
            adders.planes = reinterpret_cast<const char*>(planes);
            adders.at = queries;
            for (int p = 0; p < 6; ++p) adders.acc[p] = V::broadcast(0);
            R count[kHigh + 1];
            for (int p = 0; p <= kHigh; ++p) count[p] = V::broadcast(0);
            for (int w = 0; w < words; ++w) {
                R out = adders.template carry<5, 0>();
                for (int p = 0; p <= kHigh; ++p) {
                    const R next = V::and_(count[p], out);
                    count[p] = V::xor_(count[p], out);
                    out = next;
                }
                adders.planes += kPlanesPerWord * kPlaneBytes;
                ++adders.at;
            }
            R gone = V::xor_(V::load_unaligned(valid), ones);
            int h = 0;
            const auto bisect = [&](R plane, int weight) {
                const R farther = V::or_(gone, plane);
                if (V::all_ones(farther))
                    h += weight;
                else
                    gone = farther;
            };
            for (int p = kHigh; p >= 0; --p) bisect(count[p], 64 << p);
            for (int p = 5; p >= 0; --p) bisect(adders.acc[p], 1 << p);
            uint64_t nearest[V::lanes];
            V::store_unaligned(nearest, V::xor_(gone, ones));
            int lane = 0;
            while (nearest[lane] == 0) ++lane;
            distance[q] = static_cast<uint16_t>(h);
            place[q] = static_cast<uint16_t>(__builtin_ctzll(nearest[lane]) * V::lanes + lane);
        }
    }

    static int fold(const uint64_t* planes, int words, const FoldWord* queries,
                    const int32_t* bound, const uint32_t* list, int n, BlockHit* hits) {
        if (words == 1) return fold_words<0>(planes, words, queries, bound, list, n, hits);
        if (words == 2) return fold_words<1>(planes, words, queries, bound, list, n, hits);
        if (words <= 4) return fold_words<2>(planes, words, queries, bound, list, n, hits);
        if (words <= 8) return fold_words<3>(planes, words, queries, bound, list, n, hits);
        if (words <= 16) return fold_words<4>(planes, words, queries, bound, list, n, hits);
        if (words <= 32) return fold_words<5>(planes, words, queries, bound, list, n, hits);
        return fold_words<6>(planes, words, queries, bound, list, n, hits);
    }

    static void nearest(const uint64_t* planes, int words, const FoldWord* queries, int nq,
                        const uint64_t* valid, uint16_t* distance, uint16_t* place) {
        if (words == 1) return nearest_words<0>(planes, words, queries, nq, valid, distance, place);
        if (words == 2) return nearest_words<1>(planes, words, queries, nq, valid, distance, place);
        if (words <= 4) return nearest_words<2>(planes, words, queries, nq, valid, distance, place);
        nearest_words<6>(planes, words, queries, nq, valid, distance, place);
    }

    // Triple t reads bits 3t, 3t + 1 and 3t + 2; bit 63 is read alone.
    static void make_query(const uint64_t* query, int words, FoldWord* out) {
        for (int w = 0; w < words; ++w) {
            const uint64_t word = query[w];
            for (int t = 0; t < kTriples; ++t) {
                const int v = static_cast<int>(word >> (3 * t)) & 7;
                const int parity = (0x96 >> v) & 1;  // v has an odd number of ones
                const int base = t * kPlanesPerTriple;
                out[w].sum[t] = static_cast<uint16_t>((base + parity) * kPlaneBytes);
                out[w].carry[t] = static_cast<uint16_t>((base + 2 + v) * kPlaneBytes);
            }
            const int last = kTriples * kPlanesPerTriple + static_cast<int>(word >> 63);
            out[w].sum[kTriples] = static_cast<uint16_t>(last * kPlaneBytes);
        }
    }
};

}  // namespace dmih::simd
