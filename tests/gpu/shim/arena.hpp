// Shared memory, and random numbers to fill it with. Included by runtime.cpp alone.
#pragma once

namespace {

constexpr size_t kArenaBytes = 256 << 10;
constexpr size_t kGuard = 256;

uint64_t mix(uint64_t x) {  // splitmix64
    x += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

struct Random {
    uint64_t state;
    uint64_t operator()() { return mix(state++); }
    uint32_t below(size_t n) { return static_cast<uint32_t>(((*this)() >> 32) * n >> 32); }
};

// Shared memory of one kind: variables, with guards between them that must stay as they were
// filled.
struct Arena {
    struct Variable {
        const char* name;
        size_t begin, end;
    };
    alignas(1024) unsigned char bytes[kArenaBytes];
    std::vector<Variable> variables;
    size_t used;
    uint64_t seed;  // of the block's pattern

    // The pattern is a function of the place, so that guards can be checked.
    void fill(size_t begin, size_t end) {
        for (size_t at = begin & ~size_t{7}; at < end; at += 8) {
            const uint64_t word = mix(seed + at);
            for (size_t i = std::max(at, begin); i < std::min(at + 8, end); i++) {
                bytes[i] = static_cast<unsigned char>(word >> 8 * (i - at));
            }
        }
    }
    size_t first_change(size_t begin, size_t end) const {
        for (size_t i = begin; i < end; i++) {
            const uint64_t word = mix(seed + (i & ~size_t{7}));
            if (bytes[i] != static_cast<unsigned char>(word >> 8 * (i & 7))) return i;
        }
        return end;
    }
    void start_launch() {
        variables.clear();
        used = kGuard;
        __asan_poison_memory_region(bytes, sizeof bytes);
    }
    void start_block(uint64_t block_seed) {
        seed = block_seed;
        fill(0, used);
    }
    void* add(const char* name, size_t size, size_t alignment) {
        size_t begin = (used + alignment - 1) & ~(alignment - 1);
        // No better aligned than was asked for, lest a missing __align__ go unseen.
        if (begin % (2 * alignment) == 0) begin += alignment;
        if (begin + size + kGuard > sizeof bytes) return nullptr;
        variables.push_back({name, begin, begin + size});
        const size_t now_used = begin + size + kGuard;
        fill(used, now_used);
        used = now_used;
        __asan_unpoison_memory_region(bytes + begin, size);
        return bytes + begin;
    }
    // The guard around the variable that was written to, or null.
    const Variable* broken_guard() const {
        size_t begin = 0;
        for (const Variable& v : variables) {
            if (first_change(begin, v.begin) != v.begin) return &v;
            begin = v.end;
        }
        return first_change(begin, used) == used || variables.empty() ? nullptr : &variables.back();
    }
};

}  // namespace
