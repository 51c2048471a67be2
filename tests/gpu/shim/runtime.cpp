#include "runtime.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "races.hpp"

#ifdef SHIM_ASAN
extern "C" void __asan_poison_memory_region(const volatile void* address, size_t bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void* address, size_t bytes);
#else
static void __asan_poison_memory_region(const volatile void*, size_t) {}
static void __asan_unpoison_memory_region(const volatile void*, size_t) {}
#endif

namespace shim {

struct Warp {
    Thread* lanes;
    uint32_t alive;
    uint32_t waiting;
    uint64_t synced;  // when its last __syncwarp was
};

Thread* self;
Index3 block_index, block_size, grid_size;
uint64_t launch_number;

namespace {

constexpr size_t kStackBytes = 256 << 10;  // of which untouched pages cost nothing
constexpr size_t kPage = 4096;
constexpr size_t kStaticBytes = 48 << 10;    // limits of the hardware
constexpr size_t kDynamicBytes = 227 << 10;  // (sm_90; others have less)
constexpr unsigned kWarp = 32;
constexpr uint64_t kSleepsWithoutNews = 1'000'000;

}  // namespace

#include "arena.hpp"

namespace {

Arena static_arena, dynamic_arena;
void* dynamic_memory;

Context scheduler;
std::vector<char*> stacks;
std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<Thread*> ready;  // random access: the next one is drawn
unsigned alive, at_barrier;
uint64_t sleeps;
Random random_bits;
std::string failure;

uint64_t now;  // as races.hpp counts time
uint64_t launched, block_started, block_synced;
std::vector<Watched> watched;  // first the static and the dynamic arena, then arrays
constexpr size_t kArenas = 2;

const Kernel* kernel;
Argument* kernel_arguments;

void reserve_stacks(size_t count) {
    while (stacks.size() < count) {
        void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED || mprotect(stack, kPage, PROT_NONE) != 0) {
            std::perror("shim: no memory for stacks");
            std::abort();
        }
        stacks.push_back(static_cast<char*>(stack));
    }
}

// Of async.hpp.
void start_async();
void check_async_exit(unsigned thread);
template <class Threads>
void meet_clocks(const Threads& members);
const uint64_t* seen_by(unsigned thread);

// Leaves the running thread; it goes on when it has been drawn from `ready`.
void reschedule() {
    Thread* from = self;
    if (ready.empty()) {  // the block is done, or stuck
        self = nullptr;
        switch_context(from->context, scheduler);
        return;
    }
    const size_t drawn = random_bits.below(ready.size());
    Thread* next = ready[drawn];
    ready[drawn] = ready.back();
    ready.pop_back();
    if (next == from) return;
    self = next;
    switch_context(from->context, next->context);
}

void release(Thread& thread, uint64_t result) {
    thread.result = result;
    thread.waiting = false;
    ready.push_back(&thread);
    sleeps = 0;
}

std::string format(const char* pattern, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, pattern);
    std::vsnprintf(text, sizeof text, pattern, arguments);
    va_end(arguments);
    return text;
}

std::string place(Site at) {
    const char* slash = std::strrchr(at.file, '/');
    return format("%s:%d", slash ? slash + 1 : at.file, at.line);
}

std::string block_name() {
    return format("kernel %s, block (%u, %u, %u)", kernel->name, block_index.x, block_index.y,
                  block_index.z);
}

[[noreturn]] void stop(std::string what) {
    failure = std::move(what);
    Thread* from = self;
    self = nullptr;
    switch_context(from->context, scheduler);  // never to return
    __builtin_unreachable();
}

}  // namespace

#include "meetings.hpp"

namespace {

void run_thread() {
    kernel->invoke(kernel_arguments);
    Thread& me = *self;
    Warp& warp = *me.warp;
    check_async_exit(me.number);
    me.exited = true;
    sleeps = 0;
    alive--;
    warp.alive &= ~(1u << me.lane);
    // Those that waited for the others only.
    for (uint32_t left = warp.waiting; left; left &= left - 1) {
        const Thread& t = warp.lanes[__builtin_ctz(left)];
        if (t.waiting) try_meeting(warp, t.mask);
    }
    if (alive && at_barrier == alive) open_barrier();
    reschedule();
    __builtin_unreachable();
}

void start_threads() {
    const size_t count = size_t{block_size.x} * block_size.y * block_size.z;
    threads.assign(count, Thread{});
    warps.assign((count + kWarp - 1) / kWarp, Warp{});
    start_async();
    ready.clear();
    for (unsigned i = 0; i < count; i++) {
        Thread& t = threads[i];
        Warp& warp = warps[i / kWarp];
        if (i % kWarp == 0) warp.lanes = &t;
        t.number = i;
        t.lane = i % kWarp;
        t.warp = &warp;
        t.index = {i % block_size.x, i / block_size.x % block_size.y,
                   i / (block_size.x * block_size.y)};
        warp.alive |= 1u << t.lane;
        // Staggered: tops of stacks at one distance of each other would share a few cache sets.
        const size_t stagger = i * 192 % kPage;
        make_context(t.context, stacks[i] + kPage, kStackBytes - kPage - stagger, run_thread);
        ready.push_back(&t);
    }
    alive = static_cast<unsigned>(count);
    at_barrier = 0;
    sleeps = 0;
}

void check_guards(const Arena& arena) {
    if (const auto* v = arena.broken_guard()) {
        failure = block_name() + ": a write beside shared variable " + v->name + " (" +
                  std::to_string(v->end - v->begin) + " bytes), before it or behind it";
    }
}

void run_block() {
    block_started = block_synced = ++now;
    static_arena.start_block(random_bits());
    dynamic_arena.start_block(random_bits());
    start_threads();
    const size_t drawn = random_bits.below(ready.size());
    self = ready[drawn];
    ready[drawn] = ready.back();
    ready.pop_back();
    switch_context(scheduler, self->context);
    if (!failure.empty()) return;
    if (alive) {
        failure = block_name() + ": deadlock" + who_waits_where();
        return;
    }
    check_guards(static_arena);
    check_guards(dynamic_arena);
}

std::string describe(const Type& type) {
    return format("%s%c%u", type.is_pointer ? "an array of " : "", type.kind,
                  static_cast<unsigned>(type.size));
}

std::string mismatch(const Type& parameter, const Argument& argument) {
    const Type& type = argument.type;
    const std::string got = "got " + describe(type) + ", the kernel takes " + describe(parameter);
    if (type.is_pointer != parameter.is_pointer) return got;
    if (!parameter.is_pointer || parameter.kind != 'V') {
        if (type.kind != parameter.kind || type.size != parameter.size) return got;
    }
    if (!parameter.is_pointer) return "";
    if (type.is_const && !parameter.is_const) return "the kernel writes to a read-only array";
    if (argument.bytes % parameter.size) return got + " (numpy kind and size); bytes are left over";
    if (reinterpret_cast<uintptr_t>(argument.data) % parameter.alignment) {
        return got + " (numpy kind and size); the array is not aligned";
    }
    return "";
}

// Watches what the kernel may write to. Pointers are __restrict__, so that is no other argument.
void watch(const Argument* arguments, unsigned count) {
    if (watched.empty()) {
        watched.emplace_back(static_arena.bytes, sizeof static_arena.bytes);
        watched.emplace_back(dynamic_arena.bytes, sizeof dynamic_arena.bytes);
    }
    watched.erase(watched.begin() + kArenas, watched.end());
    const auto address = [&](unsigned i) { return static_cast<const char*>(arguments[i].data); };
    for (unsigned i = 0; i < count; i++) {
        const Type& type = kernel->parameters[i];
        if (!type.is_pointer || type.is_const) continue;
        for (unsigned j = 0; j < count; j++) {
            if (j != i && kernel->parameters[j].is_pointer &&
                address(i) < address(j) + arguments[j].bytes &&
                address(j) < address(i) + arguments[i].bytes) {
                failure = format("kernel %s: arguments %u and %u overlap", kernel->name, i, j);
            }
        }
        watched.emplace_back(arguments[i].data, arguments[i].bytes);
    }
}

// The shared variable or the argument to which `address` points, for the reader of a message.
std::string variable_at(const Watched& memory, const void* address) {
    const size_t byte = memory.place(address), which = &memory - watched.data();
    if (which >= kArenas) {
        return format("byte %zu of array %zu that it writes to", byte, which - kArenas);
    }
    for (const auto& v : (which == 0 ? static_arena : dynamic_arena).variables) {
        if (byte >= v.begin && byte < v.end)
            return format("byte %zu of %s", byte - v.begin, v.name);
    }
    return "no variable";
}

void run(const Kernel& which, const Launch& launch, Argument* arguments, unsigned count) {
    const std::string prefix = std::string("kernel ") + which.name + ": ";
    if (count != which.parameter_count) {
        failure = prefix + format("got %u arguments, takes %u", count, which.parameter_count);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        const std::string wrong = mismatch(which.parameters[i], arguments[i]);
        if (!wrong.empty()) failure = prefix + format("argument %u: ", i) + wrong;
    }
    const auto [gx, gy, gz] = launch.grid;
    const auto [bx, by, bz] = launch.block;
    const uint64_t block_threads = uint64_t{bx} * by * bz;
    if (block_threads == 0 || block_threads > which.max_threads || bz > 64) {
        failure = prefix + format("a block of %u x %u x %u threads; it takes 1 to %u", bx, by, bz,
                                  which.max_threads);
    }
    if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7FFFFFFF || gy > 65535 || gz > 65535) {
        failure = prefix + format("no GPU takes a grid of %u x %u x %u blocks", gx, gy, gz);
    }
    if (launch.shared > kDynamicBytes) failure = prefix + "more than 227 KiB of shared memory";
    if (!failure.empty()) return;

    kernel = &which;
    kernel_arguments = arguments;
    launch_number++;
    launched = ++now;
    random_bits.state = mix(launch.seed);
    grid_size = {gx, gy, gz};
    block_size = {bx, by, bz};
    reserve_stacks(block_threads);
    static_arena.start_launch();
    dynamic_arena.start_launch();
    dynamic_memory = dynamic_arena.add("(dynamic)", launch.shared, 16);
    watch(arguments, count);
    if (!failure.empty()) return;

    std::vector<uint64_t> order(uint64_t{gx} * gy * gz);
    for (uint64_t i = 0; i < order.size(); i++) {
        const size_t j = random_bits.below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (const uint64_t i : order) {
        block_index = {static_cast<unsigned>(i % gx), static_cast<unsigned>(i / gx % gy),
                       static_cast<unsigned>(i / gx / gy)};
        run_block();
        if (!failure.empty()) return;
    }
}

}  // namespace

void before_access(const volatile void* volatile_address, size_t bytes, Access kind) {
    if (!self) return;
    if ((random_bits() & 15) == 0) {
        ready.push_back(self);
        reschedule();
    }
    const void* address = const_cast<const void*>(volatile_address);
    for (Watched& memory : watched) {
        if (!memory.has(address)) continue;
        const bool shared = &memory < &watched[kArenas];
        const std::string race =
            memory.access(address, bytes, kind,
                          {shared ? block_started : launched, block_started, block_synced,
                           std::max(block_started, self->warp->synced), now, self->number,
                           shared ? seen_by(self->number) : nullptr, nullptr});
        if (!race.empty()) stop(block_name() + ": " + race + variable_at(memory, address));
        return;
    }
}

void sleep() {
    if (++sleeps > kSleepsWithoutNews) {
        stop(block_name() + ": threads sleep and nothing else happens" + who_waits_where());
    }
    ready.push_back(self);
    reschedule();
}

void fail(const char* what, Site at) {
    stop(block_name() + format(", thread %u: ", self->number) + what + " in " + place(at));
}

void* static_shared(const char* name, size_t bytes, size_t alignment) {
    size_t total = bytes;
    for (const auto& v : static_arena.variables) total += v.end - v.begin;
    void* address = total > kStaticBytes ? nullptr : static_arena.add(name, bytes, alignment);
    if (!address) stop(block_name() + ": more than 48 KiB of static shared memory");
    return address;
}

void* dynamic_shared() {
    return dynamic_memory;
}

#include "async.hpp"

}  // namespace shim

// What ThreadSanitizer's instrumentation calls before each access to memory that others can see.
#define SHIM_ACCESS(name, kind, bytes)                           \
    extern "C" SHIM_EXPORT void name(void* address) {            \
        shim::before_access(address, bytes, shim::Access::kind); \
    }
#define SHIM_ACCESSES(name, kind) \
    SHIM_ACCESS(name##1, kind, 1) \
    SHIM_ACCESS(name##2, kind, 2) \
    SHIM_ACCESS(name##4, kind, 4) \
    SHIM_ACCESS(name##8, kind, 8) \
    SHIM_ACCESS(name##16, kind, 16)
SHIM_ACCESSES(__tsan_read, read)
SHIM_ACCESSES(__tsan_write, write)
SHIM_ACCESSES(__tsan_unaligned_read, read)
SHIM_ACCESSES(__tsan_unaligned_write, write)
extern "C" SHIM_EXPORT void __tsan_read_range(void* address, size_t bytes) {
    shim::before_access(address, bytes, shim::Access::read);
}
extern "C" SHIM_EXPORT void __tsan_write_range(void* address, size_t bytes) {
    shim::before_access(address, bytes, shim::Access::write);
}
extern "C" SHIM_EXPORT void __tsan_func_entry(void*) {}
extern "C" SHIM_EXPORT void __tsan_func_exit() {}
extern "C" SHIM_EXPORT void __tsan_init() {}

int shim_launch(const shim::Kernel* table, const char* name, const shim::Launch* launch,
                shim::Argument* arguments, unsigned argument_count, char* error,
                size_t error_bytes) {
    using shim::failure;
    while (table->name && std::strcmp(table->name, name) != 0) table++;
    failure.clear();
    if (table->name) {
        shim::run(*table, *launch, arguments, argument_count);
    } else {
        failure = std::string("no kernel ") + name;
    }
    std::snprintf(error, error_bytes, "%s", failure.c_str());
    return failure.empty() ? 0 : 1;
}
