// Codes as rows: kWords little-endian u64 words each, or any number, `words`, if kWords is 0. Bits
// beyond d are zero.
#pragma once

#include "types.cuh"

__device__ __forceinline__ int row_words(int words) {
    return kWords ? kWords : words;
}

__device__ __forceinline__ const u64* row_at(const u64* rows, u32 i, int words) {
    return rows + u64{i} * row_words(words);
}

__device__ __forceinline__ int hamming(const u64* __restrict__ a, const u64* __restrict__ b,
                                       int words) {
    int distance = 0;
#pragma unroll
    for (int w = 0; w < row_words(words); w++) distance += __popcll(a[w] ^ b[w]);
    return distance;
}

// Bits [first, first + bits) of a row, 1 <= bits <= 32. Reads the word in which they begin, and the
// next one if they end there.
__device__ __forceinline__ u32 substring(const u64* __restrict__ row, int first, int bits) {
    row += first / 64;
    const int shift = first % 64;
    u64 key = row[0] >> shift;
    if (shift + bits > 64) key |= row[1] << (64 - shift);
    return static_cast<u32>(key & ((u64{1} << bits) - 1));
}
