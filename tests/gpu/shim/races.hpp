// Races: accesses to one word of memory by two threads, not both of them reads nor both atomics,
// that nothing orders. A kernel that has one may give right answers for every order in which this
// shim can run its threads, and wrong ones on a GPU.
//
// Accesses are ordered by __syncthreads within a block and by __syncwarp within a warp. Shuffles
// and votes are not promised to order memory. Loads past the L1 cache (__ldcg) count as atomics:
// that is how kernels read what others are counting. Between blocks nothing is ordered. What
// mbarriers order is known by the clocks of async.hpp.
#pragma once

#include <algorithm>
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
    const uint64_t* seen;    // by mbarriers: up to what time, of each thread; or null
    const uint64_t* fenced;  // of tensor cores: up to what time threads' writes are to be seen
};

// The latest access of a kind to a word, the latest that nothing orders with it, and by whom there
// were more of these.
struct Mark {
    enum Others : uint8_t { none, in_warp, in_block, in_grid };
    struct Epoch {
        uint64_t time;
        unsigned thread;
    };
    Epoch latest, other;
    Others others;

    // Whom `now` could race with.
    Others unordered(const Now& now, bool written) const {
        if (latest.time < now.launch) return none;
        if (latest.time < now.block || others == in_grid) return in_grid;
        const Others both =
            std::max(unordered(latest, now, written), unordered(other, now, written));
        if (latest.time < now.barrier || others == none) return both;
        if (others == in_block || latest.thread / 32 != now.thread / 32) return in_block;
        return latest.time < now.syncwarp ? both : std::max(both, in_warp);
    }
    void add(const Now& now) {
        const bool same_warp = latest.thread / 32 == now.thread / 32;
        if (latest.time < now.launch ||
            (latest.time < now.barrier && latest.time >= now.block && others != in_grid)) {
            other = {};
            others = none;
        } else if (latest.time < now.block || others == in_grid) {
            others = in_grid;
        } else {
            if (others == in_warp && !same_warp) others = in_block;
            if (others == in_warp && latest.time < now.syncwarp) others = none;
            const Others two = unordered(other, now, false);
            if (unordered(latest, now, false) != none) {
                others = std::max(others, two);
                other = latest;
            } else if (two == none) {
                other = {};
            }
        }
        latest = {now.time, now.thread};
    }

private:
    static Others unordered(const Epoch& epoch, const Now& now, bool written) {
        if (epoch.time < now.block) return none;
        if (written && now.fenced && epoch.time > now.fenced[epoch.thread]) return in_block;
        if (epoch.time < now.barrier) return none;
        if (now.seen && epoch.time <= now.seen[epoch.thread]) return none;
        if (epoch.thread / 32 != now.thread / 32) return in_block;
        return epoch.time < now.syncwarp || epoch.thread == now.thread ? none : in_warp;
    }
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
                const bool written = other == static_cast<int>(Access::write);
                if (harmless || marks[other].unordered(now, written) == Mark::none) continue;
                static constexpr const char* kinds[] = {"a read", "a write", "an atomic"};
                return std::string("a race: ") + kinds[static_cast<int>(kind)] + " by thread " +
                       std::to_string(now.thread) + " and " + kinds[other] + " by thread " +
                       std::to_string(marks[other].latest.thread) +
                       (marks[other].latest.time < now.block ? " of another block" : "") +
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
