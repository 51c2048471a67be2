// compile: kThreads=96,256
//
// What the shim is to run as a GPU does. kThreads is the size of a block, for those that care.

extern "C" __global__ void indices(unsigned* __restrict__ out) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int offset = 16; offset; offset /= 2) value += __shfl_down_sync(~0u, value, offset);
    return value;
}

// The sum of each block's values, by shuffles, then by its first warp.
extern "C" __global__ void __launch_bounds__(kThreads)
    block_sum(const unsigned long long* __restrict__ values,
              unsigned long long* __restrict__ sums) {
    __shared__ unsigned long long partial[32];
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp == 0) partial[lane] = 0;
    __syncthreads();
    const unsigned long long sum = warp_sum(values[blockIdx.x * kThreads + threadIdx.x]);
    if (lane == 0) partial[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        const unsigned long long total = warp_sum(partial[lane]);
        if (lane == 0) sums[blockIdx.x] = total;
    }
}

// Exclusive prefix sums of each block's values, in dynamic shared memory.
extern "C" __global__ void block_scan(const unsigned* __restrict__ values,
                                      unsigned* __restrict__ out) {
    extern __shared__ unsigned sums[];
    const unsigned t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    sums[t] = values[i];
    __syncthreads();
    for (unsigned step = 1; step < blockDim.x; step *= 2) {
        const unsigned before = t >= step ? sums[t - step] : 0;
        __syncthreads();
        sums[t] += before;
        __syncthreads();
    }
    out[i] = sums[t] - values[i];
}

// A histogram of bytes: in shared memory first.
extern "C" __global__ void histogram(const unsigned char* __restrict__ bytes, int n,
                                     unsigned* __restrict__ counts) {
    __shared__ __align__(16) unsigned local[2][128];
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) local[i / 128][i % 128] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&local[bytes[i] / 128][bytes[i] % 128], 1u);
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) {
        atomicAdd(&counts[i], local[i / 128][i % 128]);
    }
}

// One warp; a row of 32 results for each operation.
extern "C" __global__ void shuffles(const int* __restrict__ values, int argument,
                                    int* __restrict__ out) {
    const unsigned lane = threadIdx.x;
    const int value = values[lane];
    int row = 0;
    for (int width : {8, 32}) {
        out[32 * row++ + lane] = __shfl_sync(~0u, value, argument, width);
        out[32 * row++ + lane] = __shfl_up_sync(~0u, value, argument, width);
        out[32 * row++ + lane] = __shfl_down_sync(~0u, value, argument, width);
        out[32 * row++ + lane] = __shfl_xor_sync(~0u, value, argument, width);
    }
}

// One warp, whose lanes part ways: each side votes and reduces among its own.
extern "C" __global__ void votes(const int* __restrict__ values, unsigned side,
                                 unsigned* __restrict__ out) {
    const unsigned lane = threadIdx.x;
    const int value = values[lane];
    const unsigned mask = side >> lane & 1 ? side : ~side;
    out[lane] = __ballot_sync(mask, value & 1);
    out[32 + lane] = __any_sync(mask, value > 5);
    out[64 + lane] = __all_sync(mask, value > -5);
    out[96 + lane] = __match_any_sync(mask, value);
    // sm_80 and later; the others do without.
#if __CUDA_ARCH__ >= 800
    out[128 + lane] = __reduce_add_sync(mask, value);
    out[160 + lane] = __reduce_min_sync(mask, value);
    out[192 + lane] = __reduce_max_sync(mask, static_cast<unsigned>(value));
    out[224 + lane] = __reduce_and_sync(mask, static_cast<unsigned>(value));
    out[256 + lane] = __reduce_or_sync(mask, static_cast<unsigned>(value));
    out[288 + lane] = __reduce_xor_sync(mask, static_cast<unsigned>(value));
#endif
}

// Threads leave early; the barriers are for those that stay.
extern "C" __global__ void barriers(int* __restrict__ out, int stay) {
    const int t = threadIdx.x;
    if (t >= stay) return;
    const int count = __syncthreads_count(t % 3 == 0);
    const int all = __syncthreads_and(t >= 0);
    const int any = __syncthreads_or(t == stay);
    __syncwarp();
    out[t] = 100 * count + 10 * all + any;
}

// Atomics of every kind on one place each. out: 0 add, sub, min, max, 4 and, or, xor, exch, 8 cas.
extern "C" __global__ void atomics(unsigned* __restrict__ out, int* __restrict__ smallest,
                                   unsigned long long* __restrict__ wide,
                                   float* __restrict__ real) {
    const unsigned t = threadIdx.x;
    atomicAdd(&out[0], t);
    atomicSub(&out[1], t);
    atomicMin(&out[2], t + 5);
    atomicMax(&out[3], t + 5);
    atomicAnd(&out[4], ~(1u << t % 32));
    atomicOr(&out[5], 1u << t % 32);
    atomicXor(&out[6], t);
    if (atomicExch(&out[7], 1u) == 0) atomicAdd(&wide[1], 1ull);
    unsigned seen = __ldcg(&out[8]);
    for (unsigned old; (old = atomicCAS(&out[8], seen, seen + 2)) != seen; seen = old) {
    }
    atomicMin(smallest, 3 - static_cast<int>(t));
    atomicAdd(&wide[0], static_cast<unsigned long long>(t) << 40);
    atomicAdd(real, 0.5f);
}

// A column of results for each thread's pair of numbers.
extern "C" __global__ void arithmetic(const unsigned* __restrict__ x,
                                      const unsigned* __restrict__ y,
                                      unsigned long long* __restrict__ out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned a = __ldg(&x[i]), b = __ldcs(&y[i]);
    const unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
    unsigned long long* row = out + 16 * i;
    row[0] = __popc(a);
    row[1] = __popcll(both);
    row[2] = __clz(a);
    row[3] = __clzll(both);
    row[4] = __ffs(a);
    row[5] = __ffsll(both);
    row[6] = __brev(a);
    row[7] = __byte_perm(a, b, 0x1736);
    row[8] = __funnelshift_l(a, b, 7);
    row[9] = __funnelshift_r(a, b, 7);
    row[10] = min(a, b);
    row[11] = max(a, b);
    __stcs(&row[12], static_cast<unsigned long long>(__umulhi(a, b)));
    const uint2 pair = make_uint2(a, b);
    *reinterpret_cast<ulonglong2*>(&row[14]) = make_ulonglong2(pair.x, pair.y);
#ifdef DMIH_SHIM
    row[13] = shim_lop3(a, b, a >> 3, 0xE8);
#else
    unsigned majority;
    asm("lop3.b32 %0, %1, %2, %3, 0xE8;" : "=r"(majority) : "r"(a), "r"(b), "r"(a >> 3));
    row[13] = majority;
#endif
}

// Thread 0 hands a number on to thread 1, which waits for it, and so on.
extern "C" __global__ void relay(unsigned* __restrict__ out) {
    __shared__ unsigned turn;
    if (threadIdx.x == 0) turn = 0;
    __syncthreads();
    while (atomicAdd(&turn, 0u) != threadIdx.x) {
        if (threadIdx.x & 1) __nanosleep(100);
    }
    out[threadIdx.x] = atomicAdd(&turn, 0u);
    atomicAdd(&turn, 1u);
}

// Nothing but switches.
extern "C" __global__ void rounds(int n) {
    for (int i = 0; i < n; i++) __syncthreads();
}
