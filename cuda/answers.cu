// From what was found to the k smallest (distance, id), in order.
//
// A block per query. Of its entries those below the k-th distance are in the answer with all their
// ids; of those at the k-th distance the smallest ids are, `wanted` of them. Which these are is
// told by one id: as many tied ids are at most it as are wanted. It is found by bisection over the
// ids, 32 rounds over the tied entries, each a bisection of its list: lists are not merged, however
// long.
//
// Entries are distance << 32 | slot; for queries that were short of room, distance << 32 | id and
// no more than the answer. The answer is sorted in shared memory up to kSorted of k; beyond, keys
// query << 45 | distance << 32 | id go out, all queries at once, to be sorted by radix.
//
// A few microseconds for a query of a block's own, of which the barriers of the bisection and of
// the bitonic network are most: log2(k)^2 / 2 rounds. Not measured.
#include "found.cuh"

namespace {

constexpr u32 kThreads = 256;
constexpr int kNone = 0x7FFFFFFF;  // the distance where there is no answer
constexpr u64 kNoKey = u64{8191} << 32;

struct Answers {
    Found found;
    Lists lists;
    const int* kth;
    const u32 *below, *at;
    u32 k;

    // How many of a slot's allowed ids are at most `most`.
    __device__ __forceinline__ u32 up_to(u32 slot, u32 most) const {
        const u32 first = lists.first(slot);
        return lists.allowed(first, lists.place_above(first, lists.last(slot), most));
    }

    // Calls put(distance << 32 | id) for each id of the answer; returns how many there are.
    template <class Put>
    __device__ u32 select(u32 query, Put put) const {
        __shared__ u32 sum;
        const u64* entries = found.entries + u64{query} * found.capacity;
        const u32 n = found.count[query];
        const u32 wanted = min(at[query], k - below[query]);
        // The smallest id up to which there are as many tied ids as wanted.
        u32 least = 0, most = ~0u;
        while (wanted < at[query] && least < most) {
            const u32 middle = least + (most - least) / 2;
            if (threadIdx.x == 0) sum = 0;
            __syncthreads();
            u32 mine = 0;
            for (u32 e = threadIdx.x; e < n; e += kThreads)
                if (static_cast<int>(entries[e] >> 32) == kth[query])
                    mine += up_to(static_cast<u32>(entries[e]), middle);
            atomicAdd(&sum, mine);
            __syncthreads();
            if (sum >= wanted) {
                most = middle;
            } else {
                least = middle + 1;
            }
            __syncthreads();
        }
        for (u32 e = threadIdx.x; e < n; e += kThreads) {
            const u32 slot = static_cast<u32>(entries[e]);
            const int distance = static_cast<int>(entries[e] >> 32);
            if (distance > kth[query]) continue;
            const u32 first = lists.first(slot), last = lists.last(slot);
            const u32 ids = distance < kth[query] ? lists.allowed(first, last) : up_to(slot, most);
            for (u32 j = 0; j < ids; j++)
                put(entries[e] >> 32 << 32 | lists.id(lists.allowed_place(first, last, j)));
        }
        return below[query] + wanted;
    }

    // The same for a query whose entries are the answer.
    template <class Put>
    __device__ u32 copy(u32 query, Put put) const {
        const u32 n = found.count[query];
        for (u32 e = threadIdx.x; e < n; e += kThreads)
            put(found.entries[u64{query} * found.capacity + e]);
        return n;
    }
};

__device__ __forceinline__ void bitonic_sort(u64* keys, u32 n) {
    for (u32 size = 2; size <= n; size *= 2) {
        for (u32 stride = size / 2; stride > 0; stride /= 2) {
            for (u32 i = threadIdx.x; i < n / 2; i += kThreads) {
                const u32 low = 2 * i - (i & (stride - 1)), high = low + stride;
                const bool descending = (low & size) != 0;
                const u64 a = keys[low], b = keys[high];
                if ((a > b) != descending) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

// An answer, or what stands where there is none.
__device__ __forceinline__ void write(bool there, u64 key, int* D, i64* I) {
    *D = there ? static_cast<int>(key >> 32) : kNone;
    *I = there ? static_cast<i64>(key & 0xFFFFFFFF) : -1;
}

}  // namespace

#define ANSWERS_PARAMETERS                                                                  \
    const int* __restrict__ kth, const u32* __restrict__ below, const u32* __restrict__ at, \
        const u32* __restrict__ is_short, u32 k
#define ANSWERS                         \
    Answers {                           \
        FOUND, LISTS, kth, below, at, k \
    }

// D int32 and I int64, (nq, columns), for columns <= `places`, a power of 2; k is columns, or fewer
// where there are fewer ids. A block per query, 8 * places bytes of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256)
    answers_sorted(ANSWERS_PARAMETERS, u32 places, i64 columns, int* __restrict__ D,
                   i64* __restrict__ I, FOUND_PARAMETERS, LISTS_PARAMETERS) {
    extern __shared__ u64 keys[];
    __shared__ u32 put_so_far;
    const u32 query = blockIdx.x;
    if (threadIdx.x == 0) put_so_far = 0;
    for (u32 i = threadIdx.x; i < places; i += kThreads) keys[i] = ~u64{0};
    __syncthreads();
    const Answers answers = ANSWERS;
    const auto put = [&](u64 key) { keys[atomicAdd(&put_so_far, 1u)] = key; };
    const u32 n = is_short[query] ? answers.copy(query, put) : answers.select(query, put);
    __syncthreads();
    bitonic_sort(keys, places);
    for (i64 i = threadIdx.x; i < columns; i += kThreads)
        write(i < n, i < n ? keys[i] : 0, &D[query * columns + i], &I[query * columns + i]);
}

// keys (nq, k), query << 45 | distance << 32 | id, to be sorted by the caller; answers_write does
// the rest. `put_so_far` (nq) is zero. Where there is no answer, the distance is 8191.
extern "C" __global__ void __launch_bounds__(256)
    answers_keys(ANSWERS_PARAMETERS, u32* __restrict__ put_so_far, u64* __restrict__ keys,
                 FOUND_PARAMETERS, LISTS_PARAMETERS) {
    const u32 query = blockIdx.x;
    const u64 high = u64{query} << 45;
    u64* const row = keys + u64{query} * k;
    const Answers answers = ANSWERS;
    const auto put = [&](u64 key) { row[atomicAdd(&put_so_far[query], 1u)] = high | key; };
    const u32 n = is_short[query] ? answers.copy(query, put) : answers.select(query, put);
    for (u32 i = n + threadIdx.x; i < k; i += kThreads) row[i] = high | kNoKey;
}

// Grid-stride over D and I (nq, columns).
extern "C" __global__ void __launch_bounds__(256)
    answers_write(const u64* __restrict__ keys, u32 k, i64 columns, i64 nq, int* __restrict__ D,
                  i64* __restrict__ I) {
    for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < nq * columns;
         i += i64{gridDim.x} * kThreads) {
        const i64 column = i % columns;
        // Without its query, which is 19 bits.
        const u64 key = column < k ? keys[i / columns * k + column] << 19 >> 19 : kNoKey;
        write(key != kNoKey, key, &D[i], &I[i]);
    }
}
