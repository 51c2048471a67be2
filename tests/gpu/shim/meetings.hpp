// Where threads meet: barriers of a block, what lanes of a warp do together, and what is said of
// those that wait in vain. Included by runtime.cpp alone.
#pragma once

namespace {

constexpr const char* kOpNames[] = {
    "__syncthreads",     "__syncthreads_count", "__syncthreads_and", "__syncthreads_or",
    "__syncwarp",        "__shfl_sync",         "__shfl_up_sync",    "__shfl_down_sync",
    "__shfl_xor_sync",   "__ballot_sync",       "__all_sync",        "__any_sync",
    "__match_any_sync",  "__reduce_add_sync",   "__reduce_min_sync", "__reduce_max_sync",
    "__reduce_and_sync", "__reduce_or_sync",    "__reduce_xor_sync", "a warp's instruction",
    "an mbarrier",       "wgmma.wait_group",
};

// 0, 3, 4, 5, 7 as "0, 3-5, 7".
std::string ranges(const std::vector<unsigned>& numbers) {
    std::string text;
    for (size_t i = 0; i < numbers.size();) {
        size_t last = i;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) last++;
        text += (text.empty() ? "" : ", ") + std::to_string(numbers[i]);
        if (last > i) text += "-" + std::to_string(numbers[last]);
        i = last + 1;
    }
    return text;
}

bool same_meeting(const Thread& a, const Thread& b) {
    return a.op == b.op && a.mask == b.mask && a.at.line == b.at.line &&
           std::strcmp(a.at.file, b.at.file) == 0;
}

// Which threads wait where. With a warp, only of that warp.
std::string who_waits_where(const Warp* warp = nullptr) {
    std::vector<const Thread*> left;
    std::vector<unsigned> exited;
    for (const Thread& t : threads) {
        if (warp && t.warp != warp) continue;
        if (t.exited) exited.push_back(t.number);
        if (t.waiting) left.push_back(&t);
    }
    std::string text;
    while (!left.empty()) {
        const Thread& first = *left.front();
        std::vector<const Thread*> others;
        std::vector<unsigned> numbers;
        for (const Thread* t : left) {
            if (same_meeting(*t, first)) {
                numbers.push_back(t->number);
            } else {
                others.push_back(t);
            }
        }
        const bool of_warp = first.op >= Op::syncwarp && first.op <= Op::together;
        const std::string mask = of_warp ? format("mask 0x%08x", first.mask) : "";
        text += "; threads " + ranges(numbers) + " wait at " +
                kOpNames[static_cast<size_t>(first.op)] + "(" + mask + ") in " + place(first.at);
        left = others;
    }
    if (!exited.empty()) text += "; threads " + ranges(exited) + " have exited";
    return text;
}

// All threads have arrived that are to: lets them go on.
void open_barrier() {
    const Thread* first = nullptr;
    unsigned count = 0;
    for (const Thread& t : threads) {
        if (t.exited) continue;
        if (!first) first = &t;
        if (!same_meeting(t, *first))
            stop(block_name() + ": different barriers" + who_waits_where());
        count += t.value != 0;
    }
    std::vector<unsigned> members;
    for (const Thread& t : threads)
        if (!t.exited) members.push_back(t.number);
    meet_clocks(members);
    block_synced = ++now;
    const Op op = first->op;
    const uint64_t result = op == Op::syncthreads_count ? count
                            : op == Op::syncthreads_and ? count == alive
                                                        : count != 0;
    at_barrier = 0;
    for (Thread& t : threads) {
        if (!t.exited) release(t, result);
    }
}

uint64_t shuffled(const Warp& warp, uint32_t members, const Thread& t) {
    const unsigned first = t.lane & ~(t.width - 1), last = first + t.width - 1;
    const auto lane = static_cast<int64_t>(t.lane);
    const auto distance = static_cast<int64_t>(t.argument);
    int64_t source = lane;
    switch (t.op) {
        case Op::shfl: source = first | (t.argument & (t.width - 1)); break;
        case Op::shfl_up: source = lane - distance; break;
        case Op::shfl_down: source = lane + distance; break;
        default: source = static_cast<int64_t>(t.lane ^ t.argument);
    }
    // xor reaches lower segments, but no higher ones.
    if (source > last || (source < first && t.op != Op::shfl_xor)) source = lane;
    return members >> source & 1 ? warp.lanes[source].value : random_bits();
}

template <class Visit>
void for_lanes(uint32_t mask, Visit visit) {
    for (; mask; mask &= mask - 1) visit(__builtin_ctz(mask));
}

uint64_t reduced(const Warp& warp, uint32_t members, Op op, bool is_signed) {
    bool first = true;
    int64_t result = 0;
    for_lanes(members, [&](unsigned lane) {
        const uint64_t bits = warp.lanes[lane].value;
        const int64_t value = is_signed ? static_cast<int32_t>(bits) : static_cast<int64_t>(bits);
        if (first) {
            result = value;
            first = false;
            return;
        }
        switch (op) {
            case Op::reduce_add: result += value; break;
            case Op::reduce_min: result = std::min(result, value); break;
            case Op::reduce_max: result = std::max(result, value); break;
            case Op::reduce_and: result &= value; break;
            case Op::reduce_or: result |= value; break;
            default: result ^= value;
        }
    });
    return static_cast<uint64_t>(result);
}

// Lets the lanes of mask go on if all of them have come that are to.
void try_meeting(Warp& warp, uint32_t mask) {
    const uint32_t members = mask & warp.alive;
    if ((warp.waiting & members) != members) return;
    const Thread* first = nullptr;
    for (uint32_t left = members; left; left &= left - 1) {
        const Thread& t = warp.lanes[__builtin_ctz(left)];
        if (t.mask != mask) return;  // waits for others first, or for ever
        if (!first) first = &t;
        // __syncwarp may be met from several places, an exchange of values may not.
        if (!same_meeting(t, *first) && !(t.op == Op::syncwarp && first->op == Op::syncwarp)) {
            stop(block_name() + ": different operations meet" + who_waits_where(&warp));
        }
    }
    const Op op = first->op;
    if (op == Op::syncwarp) {
        std::vector<unsigned> numbers;
        for_lanes(members, [&](unsigned lane) { numbers.push_back(warp.lanes[lane].number); });
        meet_clocks(numbers);
        warp.synced = ++now;
    }
    uint32_t ballot = 0;
    for_lanes(members, [&](unsigned lane) { ballot |= (warp.lanes[lane].value != 0) << lane; });
    uint64_t common = 0;
    switch (op) {
        case Op::ballot: common = ballot; break;
        case Op::all: common = ballot == members; break;
        case Op::any: common = ballot != 0; break;
        case Op::together: {
            if (members != ~0u) stop(block_name() + ": lanes have exited" + who_waits_where(&warp));
            void* lanes[kWarp];
            for_lanes(members, [&](unsigned lane) {
                lanes[lane] = reinterpret_cast<void*>(warp.lanes[lane].value);
            });
            first->together(lanes);
            break;
        }
        default:
            if (op >= Op::reduce_add) common = reduced(warp, members, op, first->argument != 0);
    }
    warp.waiting &= ~members;
    for_lanes(members, [&](unsigned lane) {
        Thread& t = warp.lanes[lane];
        uint64_t result = common;
        if (op >= Op::shfl && op <= Op::shfl_xor) {
            result = shuffled(warp, members, t);
        } else if (op == Op::match_any) {
            result = 0;
            for_lanes(members, [&](unsigned other) {
                result |= static_cast<uint64_t>(warp.lanes[other].value == t.value) << other;
            });
        }
        release(t, result);
    });
}

}  // namespace

uint64_t meet_block(Op op, bool predicate, Site at) {
    Thread& me = *self;
    me.op = op;
    me.mask = 0;
    me.at = at;
    me.value = predicate;
    me.waiting = true;
    if (++at_barrier == alive) open_barrier();
    reschedule();
    return me.result;
}

uint64_t meet_warp(Op op, uint32_t mask, uint64_t value, uint32_t argument, unsigned width,
                   Site at) {
    Thread& me = *self;
    if (!(mask >> me.lane & 1)) fail("the mask does not name the thread itself", at);
    if (width == 0 || width > kWarp || (width & (width - 1))) {
        fail("the width is not a power of two up to 32", at);
    }
    me.op = op;
    me.mask = mask;
    me.at = at;
    me.value = value;
    me.argument = argument;
    me.width = width;
    me.waiting = true;
    me.warp->waiting |= 1u << me.lane;
    try_meeting(*me.warp, mask);
    reschedule();
    return me.result;
}

void meet_warp_together(Together together, void* mine, Site at) {
    self->together = together;
    meet_warp(Op::together, ~0u, reinterpret_cast<uint64_t>(mine), 0, kWarp, at);
}
