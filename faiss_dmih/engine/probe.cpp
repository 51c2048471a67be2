#include "probe.hpp"

#include <algorithm>

#include "stats.hpp"

namespace dmih {
namespace {

// One query on one segment. Looking up a bucket takes three dependent cache misses: its offsets,
// its postings, the codes they name. Keys go through the three stages in groups, each stage
// prefetching for the next, so that a group's misses overlap.
template <class Collector>
class Probe {
public:
    Probe(const Part& part, const uint64_t* query, const Filter* filter, Collector& collector,
          const Control& control)
        : part_(part),
          tables_(part.segment->tables),
          query_(query),
          filter_(filter),
          collector_(collector),
          control_(control),
          radius_(tables_.size(), -1) {}

    ~Probe() {
        stats().probes.fetch_add(probes_, std::memory_order_relaxed);
        stats().candidates.fetch_add(candidates_, std::memory_order_relaxed);
    }

    bool run(const ProbeLimits& limits) {
        const Front& front = part_.segment->front;
        warm(front);
        for (size_t s = 0;; ++s) {
            // s steps done: every code at a distance < s has been seen.
            if (collector_.full() && collector_.bound() < static_cast<int64_t>(s)) return true;
            if (s == front.steps.size()) return true;
            const size_t need = static_cast<size_t>(collector_.bound()) + 1;
            const bool open = !collector_.full() || need > front.steps.size();
            const double rest = open ? 1e300 : front.items[need] - front.items[s];
            const double step = front.items[s + 1] - front.items[s];
            if (rest > limits.scan && spent() + step > limits.look) return false;
            // A ring may hold far more than expected: never spend much more than a scan would.
            allowed_ = std::max(limits.look, 1.25 * limits.scan);
            if (!ring(front.steps[s])) return false;
        }
    }

private:
    static constexpr int kGroup = 64;

    double spent() const { return static_cast<double>(probes_ + candidates_); }

    // The first ring of every table is one bucket, a chain of misses each: start them all at once.
    void warm(const Front& front) {
        const size_t first = std::min<size_t>(tables_.size(), front.steps.size());
        for (size_t j = 0; j < first; ++j)
            __builtin_prefetch(&tables_[j].offsets[tables_[j].substring.of(query_)]);
        for (size_t j = 0; j < first; ++j)
            __builtin_prefetch(
                &tables_[j].postings[tables_[j].offsets[tables_[j].substring.of(query_)]]);
    }

    // All buckets whose key differs from the query's in exactly `radius` bits. False: too many
    // codes.
    bool ring(const Step& step) {
        const Table& table = tables_[step.table];
        const uint32_t key = table.substring.of(query_);
        table_ = step.table;
        radius_[table_] = step.radius;
        if (step.radius == 0) {
            keys_[n_keys_++] = key;
        } else {
            const uint64_t end = uint64_t{1} << table.substring.bits;
            uint64_t mask = (uint64_t{1} << step.radius) - 1;
            while (mask < end) {  // Gosper: the next number with as many bits set
                const uint32_t at = key ^ static_cast<uint32_t>(mask);
                __builtin_prefetch(&table.offsets[at]);
                keys_[n_keys_++] = at;
                if (n_keys_ == kGroup && !buckets(table)) return false;
                const uint64_t low = mask & (0 - mask);
                const uint64_t carried = mask + low;
                mask = carried | (((mask ^ carried) >> 2) >> __builtin_ctzll(low));
            }
        }
        if (!buckets(table)) return false;
        verify();
        return true;
    }

    bool buckets(const Table& table) {
        uint32_t begin[kGroup], end[kGroup];
        for (int i = 0; i < n_keys_; ++i) {
            begin[i] = table.offsets[keys_[i]];
            end[i] = table.offsets[keys_[i] + 1];
            if (end[i] > begin[i]) __builtin_prefetch(&table.postings[begin[i]]);
        }
        probes_ += n_keys_;
        for (int i = 0; i < n_keys_; ++i) {
            for (uint32_t p = begin[i]; p < end[i]; ++p) {
                const uint32_t slot = table.postings[p];
                __builtin_prefetch(part_.code(slot));
                slots_[n_slots_++] = slot;
                if (n_slots_ == kGroup) {
                    verify();
                    if (spent() > allowed_) return false;
                }
            }
        }
        n_keys_ = 0;
        if (spent() > allowed_) return false;
        control_.poll();
        return true;
    }

    void verify() {
        candidates_ += n_slots_;
        for (int i = 0; i < n_slots_; ++i) {
            const uint64_t* code = part_.code(slots_[i]);
            const int distance = hamming(code, query_, part_.words);
            if (distance > collector_.bound() || seen_before(code)) continue;
            const uint64_t ids = part_.count(slots_[i], filter_);
            if (ids > 0) collector_.add(distance, part_.number, slots_[i], ids);
        }
        n_slots_ = 0;
    }

    // A code met now in ring radius_[table_] of table_ was met before exactly if another table has
    // been probed as far as the code's distance there. No set of visited codes is needed.
    bool seen_before(const uint64_t* code) const {
        for (uint32_t j = 0; j < tables_.size(); ++j) {
            if (j != table_ && radius_[j] >= 0 &&
                tables_[j].substring.distance(code, query_) <= radius_[j])
                return true;
        }
        return false;
    }

    const Part& part_;
    const std::vector<Table>& tables_;
    const uint64_t* query_;
    const Filter* filter_;
    Collector& collector_;
    const Control& control_;
    std::vector<int> radius_;  // rho
    uint32_t table_ = 0;       // of the ring being probed
    uint64_t probes_ = 0, candidates_ = 0;
    double allowed_ = 0;
    int n_keys_ = 0, n_slots_ = 0;
    uint32_t keys_[kGroup], slots_[kGroup];
};

}  // namespace

template <class Collector>
bool probe(const Part& part, const uint64_t* query, const Filter* filter, const ProbeLimits& limits,
           Collector& collector, const Control& control) {
    return Probe<Collector>(part, query, filter, collector, control).run(limits);
}

template bool probe(const Part&, const uint64_t*, const Filter*, const ProbeLimits&, KnnCollector&,
                    const Control&);
template bool probe(const Part&, const uint64_t*, const Filter*, const ProbeLimits&,
                    RangeCollector&, const Control&);

}  // namespace dmih
