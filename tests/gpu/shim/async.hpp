// What runs beside the threads of a block: copies to shared memory, instructions of warpgroups; and
// mbarriers, which order threads, and these with them. Included by runtime.cpp alone.
//
// When something asynchronous is done is up to chance: at once, or not before it is waited for. So
// a result that is used too soon, and an operand that is overwritten too soon, give wrong answers.
// And by vector clocks races.hpp knows what an mbarrier orders, and that tensor cores see only what
// was written before a fence.proxy.async of the writer.
#pragma once

namespace {

// What somebody has seen: for each thread, and for the tensor cores of each warpgroup (numbered
// behind the threads), up to what time; and up to which fence.proxy.async.
struct Clock {
    std::vector<uint64_t> seen, fenced;

    void join(const Clock& other) {
        for (size_t i = 0; i < seen.size(); i++) {
            seen[i] = std::max(seen[i], other.seen[i]);
            fenced[i] = std::max(fenced[i], other.fenced[i]);
        }
    }
};

// Of a thread: a copy that is under way, and how many groups had been committed before it.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
    unsigned group;
};

struct MBarrier {
    unsigned count, pending;
    uint64_t phase;  // how many have ended
    uint64_t made;   // when, and by whom
    unsigned maker;
    Clock arriving, ended;  // of the phase that is under way; of the last one
    std::vector<std::pair<Thread*, unsigned>> waiting;  // with the parity
};

constexpr unsigned kGroup = 128, kRowsA = 64, kRowsB = 256, kDistances = 128;

struct Product {
    uint64_t a, b;
    bool add, done;
    unsigned arrived;
    int* d[kGroup];
    Clock clock;
};

struct Warpgroup {
    std::vector<Product> products;
    std::vector<Thread*> waiting;
};

// Of a thread.
struct Async {
    std::vector<Copy> copies;
    unsigned copy_groups;
    size_t products;                // begun
    std::vector<size_t> committed;  // products begun before each commit
    bool registers_touched;
    uint64_t fenced;  // when its last fence.proxy.async was
};

std::vector<Async> asyncs;
std::vector<Warpgroup> warpgroups;
std::map<const void*, MBarrier> mbarriers;
std::vector<Clock> clocks;  // by thread; empty until an mbarrier is made

void start_async() {
    asyncs.assign(threads.size(), Async{{}, 0, 0, {}, true, 0});
    warpgroups.assign(threads.size() / kGroup, Warpgroup{});
    mbarriers.clear();
    clocks.clear();
}

const uint64_t* seen_by(unsigned thread) {
    return clocks.empty() ? nullptr : clocks[thread].seen.data();
}

Clock no_clock() {
    const size_t n = threads.size() + warpgroups.size();
    return {std::vector<uint64_t>(n), std::vector<uint64_t>(n)};
}

// What a thread has done and seen until now goes into a clock.
void publish(unsigned thread, Clock& into) {
    if (clocks.empty()) return;
    into.join(clocks[thread]);
    into.seen[thread] = now;
    into.fenced[thread] = asyncs[thread].fenced;
}

// All of these have seen what all of them have.
template <class Threads>
void meet_clocks(const Threads& members) {
    if (clocks.empty()) return;
    Clock all = no_clock();
    for (const unsigned thread : members) publish(thread, all);
    for (const unsigned thread : members) clocks[thread].join(all);
}

void check_async_exit(unsigned thread) {
    const Async& mine = asyncs[thread];
    if (!mine.copies.empty()) fail("a thread ends while copies are under way", {"", 0});
    const size_t group = thread / kGroup;
    for (size_t i = 0; i < mine.products; i++) {
        if (!warpgroups[group].products[i].done)
            fail("a thread ends while a wgmma is under way", {"", 0});
    }
}

void finish(const Copy& copy) {
    before_access(copy.from, copy.bytes, Access::read);
    before_access(copy.to, copy.bytes, Access::write);
    std::memcpy(copy.to, copy.from, copy.bytes);
}

MBarrier& mbarrier_at(const void* address, Site at) {
    const auto found = mbarriers.find(address);
    if (found == mbarriers.end()) fail("there is no mbarrier there", at);
    MBarrier& barrier = found->second;
    if (barrier.maker != self->number && barrier.made >= block_synced)
        fail("this thread does not know yet that the mbarrier is made", at);
    return barrier;
}

bool has_ended(const MBarrier& barrier, unsigned parity) {
    return (barrier.phase & 1) != parity;
}

// Sixteen bytes of an operand, as its descriptor has them.
void read_operand(uint64_t descriptor, unsigned row, unsigned plane, unsigned reader,
                  const Clock& clock, uint64_t* into) {
    if (descriptor >> 62) fail("the shim has no swizzled operands", {"", 0});
    const auto field = [&](int shift) { return (descriptor >> shift & 0x3FFF) << 4; };
    const size_t offset = field(0) + plane * field(16) + row / 8 * field(32) + row % 8 * 16;
    const unsigned char* const from = dynamic_arena.bytes + offset;
    bool inside = false;
    for (const auto& v : dynamic_arena.variables)
        inside |= v.begin <= offset && offset + 16 <= v.end;
    if (!inside) fail("an operand of wgmma reaches beyond the dynamic shared memory", {"", 0});
    if (!clock.seen.empty()) {
        const std::string race =
            watched[1].access(from, 16, Access::read,
                              {block_started, block_started, block_synced, block_synced, now,
                               reader, clock.seen.data(), clock.fenced.data()});
        if (!race.empty()) {
            stop(block_name() + ": by the tensor cores (as thread " + std::to_string(reader) +
                 "), " + race + variable_at(watched[1], from));
        }
    }
    std::memcpy(into, from, 16);
}

void multiply(unsigned group, Product& product) {
    const auto reader = static_cast<unsigned>(threads.size()) + group;
    uint64_t a[kRowsA][4], b[kRowsB][4];
    for (unsigned plane = 0; plane < 2; plane++) {
        for (unsigned row = 0; row < kRowsA; row++)
            read_operand(product.a, row, plane, reader, product.clock, a[row] + 2 * plane);
        for (unsigned row = 0; row < kRowsB; row++)
            read_operand(product.b, row, plane, reader, product.clock, b[row] + 2 * plane);
    }
    for (unsigned t = 0; t < kGroup; t++) {
        for (unsigned i = 0; i < kDistances; i++) {
            const unsigned row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
            const unsigned column = i / 4 * 8 + t % 4 * 2 + i % 2;
            int bits = product.add ? product.d[t][i] : 0;
            for (unsigned w = 0; w < 4; w++) bits += __builtin_popcountll(a[row][w] & b[column][w]);
            product.d[t][i] = bits;
        }
    }
    product.done = true;
}

// In the order in which they were begun, as far as all threads have begun them.
void multiply_up_to(unsigned group, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Product& product = warpgroups[group].products[i];
        if (product.arrived < kGroup) return;
        if (!product.done) multiply(group, product);
    }
}

void others_first() {
    if ((random_bits() & 3) == 0) {
        ready.push_back(self);
        reschedule();
    }
}

}  // namespace

void copy_async(void* to, const void* from, unsigned bytes, Site at) {
    if ((bytes != 4 && bytes != 8 && bytes != 16) || reinterpret_cast<uintptr_t>(to) % bytes ||
        reinterpret_cast<uintptr_t>(from) % bytes) {
        fail("cp.async takes 4, 8 or 16 bytes, aligned to as many", at);
    }
    Async& mine = asyncs[self->number];
    const Copy copy{to, from, bytes, mine.copy_groups};
    if (random_bits() & 1) {
        finish(copy);
    } else {
        mine.copies.push_back(copy);
    }
}

void commit_copies() {
    asyncs[self->number].copy_groups++;
}

void wait_for_copies(unsigned left) {
    Async& mine = asyncs[self->number];
    for (size_t i = 0; i < mine.copies.size();) {
        if (mine.copies[i].group + left < mine.copy_groups) {
            finish(mine.copies[i]);
            mine.copies.erase(mine.copies.begin() + static_cast<std::ptrdiff_t>(i));
        } else {
            i++;
        }
    }
}

void mbarrier_init(void* address, unsigned count, Site at) {
    if (reinterpret_cast<uintptr_t>(address) % 8 || count == 0)
        fail("an mbarrier takes 8 bytes, aligned, and a count", at);
    if (clocks.empty()) clocks.assign(threads.size(), no_clock());
    mbarriers[address] = {count, count, 0, now, self->number, no_clock(), no_clock(), {}};
}

void mbarrier_arrive(void* address, Site at) {
    others_first();
    MBarrier& barrier = mbarrier_at(address, at);
    publish(self->number, barrier.arriving);
    ++now;
    if (--barrier.pending > 0) return;
    barrier.pending = barrier.count;
    barrier.phase++;
    barrier.ended = std::exchange(barrier.arriving, no_clock());
    std::vector<std::pair<Thread*, unsigned>> still;
    for (const auto& [thread, parity] : barrier.waiting) {
        if (has_ended(barrier, parity)) {
            release(*thread, 0);
        } else {
            still.emplace_back(thread, parity);
        }
    }
    barrier.waiting = still;
}

void mbarrier_wait(void* address, unsigned parity, Site at) {
    others_first();
    MBarrier& barrier = mbarrier_at(address, at);
    if (!has_ended(barrier, parity)) {
        self->op = Op::mbarrier;
        self->at = at;
        self->mask = 0;
        self->waiting = true;
        barrier.waiting.emplace_back(self, parity);
        reschedule();
    }
    clocks[self->number].join(barrier.ended);
}

void fence_proxy_async() {
    asyncs[self->number].fenced = now++;
}

unsigned shared_address(const void* p, Site at) {
    const auto offset = static_cast<const unsigned char*>(p) - dynamic_arena.bytes;
    if (offset < 0 || offset >= static_cast<std::ptrdiff_t>(kArenaBytes))
        fail("the shim knows addresses of dynamic shared memory only", at);
    if (offset % 16) fail("an operand is not aligned to 16 bytes", at);
    return static_cast<unsigned>(offset);
}

void wgmma_fence() {
    asyncs[self->number].registers_touched = false;
}

void wgmma(int* d, uint64_t a, uint64_t b, bool add, Site at) {
    others_first();
    Async& mine = asyncs[self->number];
    const unsigned number = self->number, group = number / kGroup;
    if (group >= warpgroups.size()) fail("wgmma by less than a warpgroup", at);
    if (mine.registers_touched) fail("no wgmma.fence since the accumulators were touched", at);
    auto& products = warpgroups[group].products;
    if (mine.products == products.size()) products.push_back({a, b, add, false, 0, {}, {}});
    Product& product = products[mine.products++];
    if (product.a != a || product.b != b || product.add != add)
        fail("the threads of a warpgroup do not agree on a wgmma", at);
    if (product.clock.seen.empty() && !clocks.empty()) product.clock = no_clock();
    publish(number, product.clock);
    ++now;
    product.d[number % kGroup] = d;
    // Until it has been waited for, anything may be there.
    for (unsigned i = 0; !add && i < kDistances; i++) d[i] = static_cast<int>(random_bits());
    if (++product.arrived < kGroup) return;
    for (Thread* thread : warpgroups[group].waiting) release(*thread, 0);
    warpgroups[group].waiting.clear();
    if (random_bits() & 1) multiply_up_to(group, products.size());
}

void wgmma_commit() {
    asyncs[self->number].committed.push_back(asyncs[self->number].products);
}

void wgmma_wait(unsigned left, Site at) {
    others_first();
    const unsigned number = self->number, group = number / kGroup;
    const auto& committed = asyncs[number].committed;
    const size_t count = committed.size() > left ? committed[committed.size() - 1 - left] : 0;
    Warpgroup& all = warpgroups[group];
    while (count > 0 && all.products[count - 1].arrived < kGroup) {
        self->op = Op::warpgroup;
        self->at = at;
        self->mask = 0;
        self->waiting = true;
        all.waiting.push_back(self);
        reschedule();
    }
    multiply_up_to(group, count);
    if (!clocks.empty()) clocks[number].seen[threads.size() + group] = now++;
    if (left == 0) asyncs[number].registers_touched = true;
}
