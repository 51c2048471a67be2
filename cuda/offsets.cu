// compile: kWords=0,1,2,4,8
//
// The layout of a direct-address table: how many codes fall into each bucket, and which.
//
// A code's bucket is its substring key, bits [first, first + bits) of its row. Rows are `words`
// little-endian uint64 (kWords of them, or any number if kWords is 0), 1 <= bits <= 32,
// first + bits <= 64 * words. Between the two kernels the caller turns counts into exclusive
// offsets.
//
//                     bucket_counts                  bucket_fill
//   bytes, in order   8 * words per code             8 * words per code
//   random sectors    1 read-modify-write per code   1 read-modify-write and 1 write per code
//   operations        about 10 per code              about 10 per code
//
// Derived limits on an H200, 1e9 codes of 64 bits, a table that is larger than the L2 cache (4.3e12
// bytes/s in order, 25e9 random sectors of 32 bytes/s): 1.9 ms for the codes, 40 ms for the counts,
// 80 ms for the slots. Random sectors are the limit, and a smaller table stays in L2. Not measured.
//
// Lanes of a warp are not aggregated by bucket (__match_any_sync) before the atomics: among 32
// random keys of a large table hardly two agree, and the match would be paid by all. Codes of which
// many agree in all bits of a substring queue at one counter; whether that ever matters is not
// measured.
#include "rows.cuh"

// counts[key] += 1 for each of the n codes: uint32 [2^bits], zero before the first call.
extern "C" __global__ void __launch_bounds__(256)
    bucket_counts(const u64* __restrict__ codes, i64 n, int words, int first, int bits,
                  u32* __restrict__ counts) {
    const i64 step = i64{gridDim.x} * blockDim.x;
    for (i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
        atomicAdd(&counts[substring(row_at(codes, static_cast<u32>(i), words), first, bits)], 1u);
    }
}

// Writes each code's number into its bucket: slots[cursor[key]++] = i. cursor is uint32 [2^bits]
// and begins as the exclusive offsets, slots is uint32 [n], n <= 2^32. Order within a bucket is
// unspecified, and not even the same in two runs.
extern "C" __global__ void __launch_bounds__(256)
    bucket_fill(const u64* __restrict__ codes, i64 n, int words, int first, int bits,
                u32* __restrict__ cursor, u32* __restrict__ slots) {
    const i64 step = i64{gridDim.x} * blockDim.x;
    for (i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
        slots[atomicAdd(&cursor[substring(row_at(codes, static_cast<u32>(i), words), first, bits)],
                        1u)] = static_cast<u32>(i);
    }
}
