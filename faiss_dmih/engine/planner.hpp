// Which engine answers a query on a segment: learnt from what queries like it have cost.
//
// A probe finds out as it goes whether it is worth its while: once k codes are known the front says
// what finishing would cost. Until then it *looks*, and what it spends is lost if the query is
// scanned after all. How far to look is the ski-rental problem with a known past: some queries are
// allowed the longest look, what each would have cost at every shorter one follows, and the others
// get the one that would have been cheapest. Scanning at once is the other way: what either has
// cost is kept, and the dearer one tried now and then. None of it changes an answer.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace dmih {

struct Segment;
struct ScanCosts;

// In items of the front; a probe stops where they say so.
struct ProbeLimits {
    double scan = 1e300;  // what a scan instead would cost
    double look = 1e300;  // to be spent at most while finishing is expected to cost more than that
    size_t tells_of = 0;  // so many of kLooks: what comes of it tells what they would have cost
};

// What a probe did.
struct Probed {
    bool done;         // false: given up
    double spent;      // items
    double undecided;  // the look it needed to be decided on; infinite if it never was
};

// Of a scan's cost: how long a look may be. Those beyond the first five are tried only where the
// one before has been the best.
constexpr std::array<double, 7> kLooks{0, 1.0 / 16, 1.0 / 8, 1.0 / 4, 1.0 / 2, 1, 2};

// Running means over recent queries, in nanoseconds of one thread; 0 while nothing is known.
struct Experience {
    std::atomic<float> scan_ns{0};      // a scan of the segment, without what queries share
    std::atomic<float> expected{0};     // the same of all queries of a batch, as shares tell
    std::atomic<float> scan_factor{0};  // how much more than its share of the codes tells
    std::atomic<uint32_t> batches{0};   // large ones
    // Calls, a query: of those that were scanned at once, and of the others.
    std::atomic<float> whole_ns{0}, mixed_ns{0};
    std::atomic<uint32_t> calls{0}, wholes{0}, mixed{0};
    // A probe: items spent, time, items squared, items times time. Its first items are the dearest
    // (nothing is in the caches), so what an item costs is the slope of a line through the probes
    // seen, not their mean: most of them may have been short looks.
    std::atomic<float> items{0}, ns{0}, items_items{0}, items_ns{0};
    std::atomic<float> sampled_ns{0};                         // an item of a sample, at the least
    std::array<std::atomic<float>, kLooks.size()> look_ns{};  // a query, by how far it may look
    std::atomic<uint32_t> best{0};                            // the look of the last large batch
    std::atomic<uint32_t> queries{0}, looks{0}, probes{0};    // how many are in the means
    // A query whose answers are filtered, by whatever engines; time that passed, not of one thread.
    std::atomic<float> filtered_ns{0};
};

// By kind of call (lone queries, small and large batches) and by what is asked for.
struct Experiences {
    static constexpr int kCalls = 3, kWorkloads = 16;
    Experience of[kCalls][kWorkloads];

    Experience& at(const ScanCosts& costs, size_t queries, int workload);
};

// Asked for: k nearest, by the magnitude of k; codes within a radius, by its share of d.
int knn_workload(uint64_t k);
int range_workload(int radius, int d);

// Asked for: k nearest, or (k = 0) codes within a radius of d.
struct Workload {
    uint64_t k;
    int radius, d;

    // On a part of whose ids so many may be answered: the k nearest of these are found as are k
    // over that share of all.
    int of(double share) const {
        return k == 0 ? range_workload(radius, d)
                      : knn_workload(static_cast<uint64_t>(static_cast<double>(k) / share));
    }
};

// The plan for one call and one segment. next_look, learn and learn_probe may be called from all
// threads of the call.
class Planner {
public:
    // Of a large batch so many queries look far, for the others.
    static constexpr size_t kSample = 32;

    Planner(const Segment& segment, const ScanCosts& costs, size_t queries, int threads,
            int workload);

    bool large() const { return large_; }
    // A large batch: first for its sample, then, with what the sample has come to, for the rest.
    // Where looking has been of no use, only one batch in some has a sample.
    bool samples() {
        constexpr uint32_t kNowAndThen = 4;
        const uint32_t number = known_.batches.fetch_add(1, std::memory_order_relaxed);
        at_once_ = number % kNowAndThen != 0 && known_.best.load(std::memory_order_relaxed) == 0;
        return !at_once_;
    }
    ProbeLimits longest_look() const {
        constexpr size_t kWholeScan = 5;
        return longer_than(known_.best.load(std::memory_order_relaxed), kWholeScan);
    }
    // What share of the codes a scan of each of the sample would look at, and whether that is worth
    // finding out. Queries that probing gives up are the hard ones, for a scan too: what these have
    // cost says nothing of the others.
    bool asks_for_shares(const std::vector<Probed>& sample) const;
    void expect_scans(const std::vector<double>& shares);
    // How far the rest may look; nothing: all of it is to be scanned.
    std::optional<ProbeLimits> best_look(const std::vector<Probed>& sample, size_t looks);
    // Otherwise: whether to scan at once. A scan of some of a batch costs more than their share of
    // one of all, and those left for it are the hard ones; so both ways are timed as a whole.
    bool scans_at_once();
    // What the call took in all.
    void learn_call(double ns);
    // And for the next query, and what it has come to.
    ProbeLimits next_look();
    void learn(const Probed& probed, size_t looks);

    // What passes on all threads in a time.
    double of_all_threads(double ns) const { return ns * threads_; }
    // The sample of a large batch: few queries, which find everything out of the caches, so that
    // they tell at most how much less an item takes than it did when the segment was built.
    void learn_sample(double items, double ns);
    // A probe, or the mean of several, spent so many items in so many nanoseconds.
    void learn_probe(double items, double ns);
    // So many queries were scanned together; or none.
    void learn_scan(size_t queries, double ns);

    // A filtered query took so long, by whatever engines.
    static void learn_filtered(Experience& known, double ns);

private:
    ProbeLimits limits(double look, double scan_ns) const;
    // Than kLooks[best], and at least kLooks[at_least].
    ProbeLimits longer_than(size_t best, size_t at_least) const;
    bool finishes(const Probed& probed, double look) const;
    double cost(const Probed& probed, double look, double scan_ns) const;
    double scan_of(size_t i) const { return scan_of_.empty() ? scan_ns_ : scan_of_[i]; }

    Experience& known_;
    bool large_, at_once_ = false, explores_ = false;
    size_t queries_;
    int threads_;
    double shared_ns_;               // of a scan, for all its queries: the planes
    double scan_ns_, model_ns_;      // for each of them; the latter if nothing is ruled out
    double item_ns_, query_ns_ = 0;  // a probe costs query_ns_ + items * item_ns_
    std::vector<double> scan_of_;    // of each query of the sample; empty: nothing special
    double left_ns_ = 0;             // what scanning is expected to take of those left for it
};

}  // namespace dmih
