// One fault a kernel.

extern "C" __global__ void half_a_warp_shuffles(unsigned* __restrict__ out) {
    unsigned value = threadIdx.x;
    if (threadIdx.x < 16) value = __shfl_xor_sync(~0u, value, 1);
    __syncthreads();
    out[threadIdx.x] = value;
}

extern "C" __global__ void two_barriers(unsigned* __restrict__ out) {
    if (threadIdx.x < 32) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2;
    }
}

extern "C" __global__ void ballot_meets_shuffle(unsigned* __restrict__ out) {
    if (threadIdx.x & 1) {
        out[threadIdx.x] = __ballot_sync(~0u, 1);
    } else {
        out[threadIdx.x] = __shfl_sync(~0u, threadIdx.x, 0);
    }
}

extern "C" __global__ void mask_without_self(unsigned* __restrict__ out) {
    out[threadIdx.x] = __ballot_sync(~1u, 1);
}

extern "C" __global__ void width_of_three(unsigned* __restrict__ out) {
    out[threadIdx.x] = __shfl_sync(~0u, threadIdx.x, 0, 3);
}

extern "C" __global__ void waits_for_nobody(unsigned* __restrict__ out) {
    while (atomicAdd(out, 0u) == 0) __nanosleep(100);
}

extern "C" __global__ void trap(unsigned* __restrict__ out) {
    if (threadIdx.x == 3 && blockIdx.x == 1) __trap();
    out[threadIdx.x] = 0;
}

// The neighbour may not have written yet.
extern "C" __global__ void missing_syncwarp(unsigned* __restrict__ out) {
    __shared__ unsigned values[64];
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}

// The neighbour may already write for the next round.
extern "C" __global__ void missing_second_barrier(unsigned* __restrict__ out) {
    __shared__ unsigned values[64];
    unsigned sum = 0;
    for (unsigned i = 0; i < 4; i++) {
        values[threadIdx.x] = i;
        __syncthreads();
        sum = 10 * sum + values[63 - threadIdx.x];
    }
    out[threadIdx.x] = sum;
}

extern "C" __global__ void uninitialised(unsigned* __restrict__ out) {
    __shared__ unsigned counter;
    if (threadIdx.x == 0) counter += 1;
    __syncthreads();
    out[threadIdx.x] = counter;
}

extern "C" __global__ void uninitialised_dynamic(unsigned* __restrict__ out) {
    extern __shared__ unsigned values[];
    out[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void counts_without_atomics(unsigned* __restrict__ out) {
    out[0]++;
}

// A vote does not order memory.
extern "C" __global__ void counts_after_a_vote(unsigned* __restrict__ out) {
    __shared__ unsigned counter;
    if (threadIdx.x == 0) counter = 0;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    out[threadIdx.x] = counter;
    if (__any_sync(~0u, 1)) atomicAdd(&counter, 1u);
}

extern "C" __global__ void blocks_write_one_word(unsigned* __restrict__ out) {
    out[threadIdx.x] = blockIdx.x;
}

// By a plain load, which may be answered by an old line of the L1 cache.
extern "C" __global__ void reads_what_others_count(unsigned* __restrict__ out) {
    if (threadIdx.x == 0) atomicAdd(&out[1 + out[0]], 1u);
    if (threadIdx.x == 0) atomicAdd(&out[0], 1u);
}

// Shuffles from a lane that does not take part.
extern "C" __global__ void inactive_source(unsigned* __restrict__ out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xFFFFu, threadIdx.x, 20);
}

extern "C" __global__ void beyond_static(int* __restrict__ out) {
    __shared__ int values[4];
    volatile int* start = values;
    start[out[0]] = 7;
    out[1] = start[0];
}

extern "C" __global__ void reads_beyond_dynamic(int* __restrict__ out) {
    extern __shared__ int values[];
    values[0] = 0;
    out[0] = values[out[0]];
}

extern "C" __global__ void beyond_dynamic(int* __restrict__ out) {
    extern __shared__ int values[];
    values[out[0]] = 7;
    out[1] = values[0];
}

extern "C" __global__ void beyond_global(unsigned* __restrict__ out, int i) {
    out[i] = 1;
}

extern "C" __global__ void reads_beyond_global(const unsigned* __restrict__ in,
                                               unsigned* __restrict__ out) {
    out[threadIdx.x] = in[threadIdx.x + 1];
}

extern "C" __global__ void shifts_too_far(unsigned* __restrict__ out, int by) {
    out[0] = 1u << by;
}

extern "C" __global__ void unaligned(unsigned* __restrict__ out) {
    __shared__ unsigned words[8];  // nobody promised 16 bytes
    words[threadIdx.x % 8] = threadIdx.x;
    __syncthreads();
    const uint4 four = *reinterpret_cast<const uint4*>(words);
    out[threadIdx.x] = four.x;
}

extern "C" __global__ void too_much_shared(unsigned* __restrict__ out) {
    __shared__ unsigned words[20000];
    words[threadIdx.x] = 0;
    out[threadIdx.x] = words[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64)
    narrow(unsigned* __restrict__ out, int n, const uint4* in) {
    if (static_cast<int>(threadIdx.x) < n) out[threadIdx.x] = in[0].x;
}
