// What runs CUDA threads on one CPU thread: a fiber each, switched at barriers, at warp-wide
// operations, and now and then before an atomic or any access to memory: kernels are compiled with
// ThreadSanitizer's instrumentation, whose calls lead here. Blocks run one after another, in random
// order.
//
// Threads of a warp do not run in step: each runs on until an operation for which it must meet
// others. This is more than any GPU takes advantage of, so that what works only in step is found.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fiber.hpp"

#define SHIM_EXPORT __attribute__((visibility("default")))
#define SHIM_AT_ONCE __attribute__((no_sanitize("thread")))  // no thread comes between

namespace shim {

struct Index3 {
    unsigned x, y, z;
};

// A place in a kernel's source. As a default argument it is the place of the call.
struct Site {
    const char* file;
    int line;
};
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
}

enum class Op : uint8_t {
    syncthreads,
    syncthreads_count,
    syncthreads_and,
    syncthreads_or,
    syncwarp,
    shfl,
    shfl_up,
    shfl_down,
    shfl_xor,
    ballot,
    all,
    any,
    match_any,
    reduce_add,
    reduce_min,
    reduce_max,
    reduce_and,
    reduce_or,
    reduce_xor,
    together,
    mbarrier,
    warpgroup,
};

struct Warp;

// What a whole warp does at once: given what each of the 32 lanes has come with.
using Together = void (*)(void* const* lanes);

struct Thread {
    Context context;
    Index3 index;
    unsigned number;  // within the block
    unsigned lane;
    Warp* warp;
    bool exited;
    // What it waits for, and with what it came.
    bool waiting;
    Op op;
    unsigned width;
    uint32_t mask;
    uint32_t argument;
    Site at;
    uint64_t value;
    uint64_t result;
    Together together;
};

extern SHIM_EXPORT Thread* self;
extern SHIM_EXPORT Index3 block_index, block_size, grid_size;
extern SHIM_EXPORT uint64_t launch_number;  // of this process, from 1

// Waits for all threads of the block that have not exited.
SHIM_EXPORT uint64_t meet_block(Op op, bool predicate, Site at);

// Waits for all lanes of mask that have not exited.
SHIM_EXPORT uint64_t meet_warp(Op op, uint32_t mask, uint64_t value, uint32_t argument,
                               unsigned width, Site at);

// Waits for all lanes; the last one to come calls `together`.
SHIM_EXPORT void meet_warp_together(Together together, void* mine, Site at);

// Copies to shared memory that are under way until they are waited for: when they are done before
// that is up to chance. All but the `left` groups committed last are waited for.
SHIM_EXPORT void copy_async(void* to, const void* from, unsigned bytes, Site at);
SHIM_EXPORT void commit_copies();
SHIM_EXPORT void wait_for_copies(unsigned left);

// As the PTX instructions of these names; async.hpp.
SHIM_EXPORT void mbarrier_init(void* address, unsigned count, Site at);
SHIM_EXPORT void mbarrier_arrive(void* address, Site at);
SHIM_EXPORT void mbarrier_wait(void* address, unsigned parity, Site at);
SHIM_EXPORT void fence_proxy_async();
SHIM_EXPORT unsigned shared_address(const void* p, Site at);
SHIM_EXPORT void wgmma_fence();
SHIM_EXPORT void wgmma(int* d, uint64_t a, uint64_t b, bool add, Site at);
SHIM_EXPORT void wgmma_commit();
SHIM_EXPORT void wgmma_wait(unsigned left, Site at);

// Before an access to memory: sometimes another thread goes first. Fails if the access races.
enum class Access : uint8_t { read, write, atomic };
SHIM_EXPORT void before_access(const volatile void* address, size_t bytes, Access kind);
SHIM_EXPORT void sleep();

[[noreturn]] SHIM_EXPORT void fail(const char* what, Site at);

// A __shared__ variable: one address per launch, random bits at the start of each block.
SHIM_EXPORT void* static_shared(const char* name, size_t bytes, size_t alignment);
SHIM_EXPORT void* dynamic_shared();

// T may be an array. Each use in the source passes a lambda of its own, whose type tells the
// variables of one function from those of another, and of one instantiation from those of the next.
template <class T, class Tag>
SHIM_AT_ONCE T& shared(Tag, const char* name, size_t alignment = alignof(T)) {
    static uint64_t launch;
    static void* address;
    if (launch != launch_number) {
        launch = launch_number;
        address = static_shared(name, sizeof(T), alignment);
    }
    return *static_cast<T*>(address);
}

// How a parameter and an argument are described to each other: numpy's kind ('u', 'i', 'f', 'b';
// 'V' for anything else) and size of the value, or of what the pointer points to.
struct Type {
    char kind;
    uint8_t is_pointer;
    uint8_t is_const;
    uint8_t alignment;
    uint32_t size;
};

struct Argument {
    void* data;
    uint64_t bytes;
    Type type;
};

struct Kernel {
    const char* name;
    void (*invoke)(Argument*);
    const Type* parameters;
    unsigned parameter_count;
    unsigned max_threads;  // of __launch_bounds__, or 1024
};

struct Launch {
    unsigned grid[3];
    unsigned block[3];
    uint64_t shared;
    uint64_t seed;
};

}  // namespace shim

// Runs the kernel of that name from the table (which ends with a null name). Returns 0, or 1 with a
// message in `error`.
extern "C" SHIM_EXPORT int shim_launch(const shim::Kernel* table, const char* name,
                                       const shim::Launch* launch, shim::Argument* arguments,
                                       unsigned argument_count, char* error, size_t error_bytes);
