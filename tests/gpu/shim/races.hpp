// Races: accesses to one word of memory by two threads, not both of them reads nor both atomics,
// that nothing orders. A kernel that has one may give right answers for every order in which this
// shim can run its threads, and wrong ones on a GPU.
//
// Accesses are ordered by __syncthreads within a block and by __syncwarp within a warp. Shuffles
// and votes are not promised to order memory. Loads past the L1 cache (__ldcg) count as atomics:
// that is how kernels read what others are counting. Between blocks nothing is ordered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

namespace shim {

// Times are numbers that grow with every launch, block, __syncthreads and __syncwarp.
struct Now {
    uint64_t launch, block;      // when they began
    uint64_t barrier, syncwarp;  // when the thread last took part in one
    uint64_t time;
    unsigned thread;
};

// The latest access of a kind to a word, and by whom there were others that nothing orders with it.
struct Mark {
    enum Others : uint8_t { none, in_warp, in_block, in_grid };
    uint64_t time;
    unsigned thread;
    Others others;

    // Whom `now` could race with.
    Others unordered(const Now& now) const {
        if (time < now.launch) return none;
        if (time < now.block || others == in_grid) return in_grid;
        if (time < now.barrier) return none;
        if (thread / 32 != now.thread / 32 || others == in_block) return in_block;
        if (time < now.syncwarp) return none;
        return thread != now.thread || others == in_warp ? in_warp : none;
    }
    void add(const Now& now) { *this = {now.time, now.thread, unordered(now)}; }
};

// Memory of which accesses are watched, in words of 4 bytes; narrower accesses are not.
class Watched {
public:
    Watched(const void* begin, size_t bytes)
        : begin_(reinterpret_cast<uintptr_t>(begin)),
          bytes_(bytes),
          words_(static_cast<Word*>(std::calloc(bytes / 4 + 1, sizeof(Word))), &std::free) {}

    size_t place(const void* address) const {
        return reinterpret_cast<uintptr_t>(address) - begin_;
    }
    bool has(const void* address) const { return place(address) < bytes_; }
    // With which earlier access it races, if with any: the beginning of a message, or "".
    std::string access(const void* address, size_t bytes, Access kind, const Now& now) {
        const size_t first = place(address);
        for (size_t at = first; at + 4 <= first + bytes; at += 4) {
            Mark* const marks = words_.get()[at / 4].marks;
            for (int other = 0; other < 3; other++) {
                const bool harmless = other == static_cast<int>(kind) && kind != Access::write;
                if (harmless || marks[other].unordered(now) == Mark::none) continue;
                static constexpr const char* kinds[] = {"a read", "a write", "an atomic"};
                return std::string("a race: ") + kinds[static_cast<int>(kind)] + " by thread " +
                       std::to_string(now.thread) + " and " + kinds[other] + " by thread " +
                       std::to_string(marks[other].thread) +
                       (marks[other].time < now.block ? " of another block" : "") +
                       ", unordered, at ";
            }
            marks[static_cast<int>(kind)].add(now);
        }
        return "";
    }

private:
    struct Word {
        Mark marks[3];  // by Access
    };
    uintptr_t begin_;
    size_t bytes_;
    std::unique_ptr<Word, void (*)(void*)> words_;  // untouched pages cost nothing
};

}  // namespace shim
