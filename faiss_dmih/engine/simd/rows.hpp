// The row kernel with the processor's scalar popcount: three or four operations per word, so about
// one word per cycle. Included by each instruction set's
// file so that it is compiled with that set's flags.
#pragma once

#include "kernels.hpp"

namespace dmih::simd {
namespace {

// Distances of a group are computed first and looked at together: one branch per group.
template <int kWords>
int rows_fixed(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
               uint32_t* index, uint16_t* distance) {
    constexpr int kGroup = 16;
    const int w_end = kWords > 0 ? kWords : words;
    int found = 0;
    auto distance_to = [&](int i) {
        const uint64_t* code = codes + static_cast<size_t>(i) * w_end;
        int h = 0;
        for (int w = 0; w < w_end; ++w) h += __builtin_popcountll(code[w] ^ query[w]);
        return h;
    };
    int i = 0;
    for (; i + kGroup <= n; i += kGroup) {
        int h[kGroup];
        int nearest = 1 << 30;
        for (int j = 0; j < kGroup; ++j) {
            h[j] = distance_to(i + j);
            nearest = h[j] < nearest ? h[j] : nearest;
        }
        if (nearest > bound) continue;
        for (int j = 0; j < kGroup; ++j) {
            index[found] = static_cast<uint32_t>(i + j);
            distance[found] = static_cast<uint16_t>(h[j]);
            found += h[j] <= bound;
        }
    }
    for (; i < n; ++i) {
        const int h = distance_to(i);
        index[found] = static_cast<uint32_t>(i);
        distance[found] = static_cast<uint16_t>(h);
        found += h <= bound;
    }
    return found;
}

// For kernels that take rows by the group: goes on at row i, with `found` rows found before.
template <int kWords>
int rows_rest(const uint64_t* codes, int i, int n, int words, const uint64_t* query, int bound,
              uint32_t* index, uint16_t* distance, int found) {
    const int more = rows_fixed<kWords>(codes + static_cast<size_t>(i) * words, n - i, words, query,
                                        bound, index + found, distance + found);
    for (int j = found; j < found + more; ++j) index[j] += static_cast<uint32_t>(i);
    return found + more;
}

[[maybe_unused]] int rows_popcount(const uint64_t* codes, int n, int words, const uint64_t* query,
                                   int bound, uint32_t* index, uint16_t* distance) {
    switch (words) {
        case 1: return rows_fixed<1>(codes, n, words, query, bound, index, distance);
        case 2: return rows_fixed<2>(codes, n, words, query, bound, index, distance);
        case 4: return rows_fixed<4>(codes, n, words, query, bound, index, distance);
        case 8: return rows_fixed<8>(codes, n, words, query, bound, index, distance);
        default: return rows_fixed<0>(codes, n, words, query, bound, index, distance);
    }
}

[[maybe_unused]] void distances_popcount(const uint64_t* codes, int n, int words,
                                         const uint64_t* query, uint16_t* out) {
    for (int i = 0; i < n; ++i, codes += words) {
        int h = 0;
        for (int w = 0; w < words; ++w) h += __builtin_popcountll(codes[w] ^ query[w]);
        out[i] = static_cast<uint16_t>(h);
    }
}

// By bisection: the compiler turns counting, but no sorting, into vector operations.
[[maybe_unused]] int kth_smallest_plain(const uint16_t* values, int n, int k) {
    constexpr int kRun = 1 << 14;  // its count fits 16 bits
    uint16_t low = 0, high = (1 << 15) - 1;
    while (low < high) {
        const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
        int within = 0;
        for (int at = 0; at < n; at += kRun) {
            const int end = n - at < kRun ? n : at + kRun;
            uint16_t run = 0;
            for (int i = at; i < end; ++i) run = static_cast<uint16_t>(run + (values[i] <= middle));
            within += run;
        }
        if (within >= k)
            high = middle;
        else
            low = static_cast<uint16_t>(middle + 1);
    }
    return low;
}

// By the triangle inequality a code at distance r from a centre can be within t of a query at
// distance c from it only if c - t <= r <= c + t.
[[maybe_unused]] void select_rest(const uint16_t* center, const uint16_t* bound, int i, int n,
                                  uint16_t from, uint16_t to, uint64_t* need) {
    for (; i < n; ++i) {
        const bool hit = center[i] - bound[i] <= to && center[i] + bound[i] >= from;
        need[i / 64] |= static_cast<uint64_t>(hit) << (i % 64);
    }
}

[[maybe_unused]] void select_plain(const uint16_t* center, const uint16_t* bound, int n,
                                   uint16_t from, uint16_t to, uint64_t* need) {
    select_rest(center, bound, 0, n, from, to, need);
}

}  // namespace
}  // namespace dmih::simd
