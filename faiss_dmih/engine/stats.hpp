// What searches did, summed over the process: relaxed counters, added to once per query or task.
#pragma once

#include <atomic>
#include <cstdint>

namespace dmih {

struct Stats {
    std::atomic<uint64_t> queries{0};
    std::atomic<uint64_t> probes{0};      // buckets looked up
    std::atomic<uint64_t> candidates{0};  // entries met in buckets
    std::atomic<uint64_t> compared{0};    // of these: codes compared, their signatures being near
    std::atomic<uint64_t> scanned{0};     // codes compared by a scan
    std::atomic<uint64_t> fallbacks{0};   // (query, segment) pairs given up by the probe engine

    void reset() { queries = probes = candidates = compared = scanned = fallbacks = 0; }
};

inline Stats& stats() {
    static Stats instance;
    return instance;
}

}  // namespace dmih
