// What searches did, summed over the process: relaxed counters, added to once per query or task.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace dmih {

struct Stats {
    std::atomic<uint64_t> queries{0};
    std::atomic<uint64_t> probes{0};      // buckets looked up
    std::atomic<uint64_t> candidates{0};  // entries met in buckets
    std::atomic<uint64_t> compared{0};    // of these: codes compared, their signatures being near
    std::atomic<uint64_t> scanned{0};     // codes compared by a scan
    std::atomic<uint64_t> fallbacks{0};   // (query, segment) pairs given up by the probe engine

    // Nanoseconds that passed on the calling threads.
    std::atomic<uint64_t> select_ns{0}, probe_ns{0}, scan_ns{0}, budget_ns{0}, answer_ns{0};

    void reset() {
        queries = probes = candidates = compared = scanned = fallbacks = 0;
        select_ns = probe_ns = scan_ns = budget_ns = answer_ns = 0;
    }
};

// Adds the time that it lives.
class Timed {
public:
    explicit Timed(std::atomic<uint64_t>& sum) : sum_(sum) {}
    ~Timed() {
        const auto taken = std::chrono::steady_clock::now() - start_;
        sum_.fetch_add(static_cast<uint64_t>(std::chrono::nanoseconds(taken).count()),
                       std::memory_order_relaxed);
    }
    Timed(const Timed&) = delete;
    Timed& operator=(const Timed&) = delete;

private:
    std::atomic<uint64_t>& sum_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

inline Stats& stats() {
    static Stats instance;
    return instance;
}

}  // namespace dmih
