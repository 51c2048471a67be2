#include "probe.hpp"

#include <algorithm>

namespace dmih {

template <class Collector>
Prober<Collector>::~Prober() {
    stats_.probes.fetch_add(probes_, std::memory_order_relaxed);
    stats_.candidates.fetch_add(candidates_, std::memory_order_relaxed);
}

template <class Collector>
bool Prober<Collector>::run(const uint64_t* query, const ProbeLimits& limits,
                            Collector& collector) {
    query_ = query;
    collector_ = &collector;
    radius_.assign(tables_.size(), -1);
    spent_ = 0;
    n_keys_ = n_slots_ = 0;
    const Front& front = part_.segment->front;
    const std::vector<Step>& steps = front.steps;
    for (size_t s = 0;; ++s) {
        // s steps done: every code at a distance < s has been seen.
        if (collector.full() && collector.bound() < static_cast<int64_t>(s)) return true;
        if (s == steps.size()) return true;
        const size_t need = static_cast<size_t>(collector.bound()) + 1;
        const bool open = !collector.full() || need > steps.size();
        // This query's rings may be fuller or emptier than the mean: as the last ones, so the next.
        const double fullness = s == 0 ? 1 : std::max(spent() / front.items[s], 0.25);
        const double rest = open ? 1e300 : fullness * (front.items[need] - front.items[s]);
        const double step = fullness * (front.items[s + 1] - front.items[s]);
        if (rest > limits.scan && spent() + step > limits.look) return false;
        // A ring may still hold far more than expected: never spend more than a scan would.
        allowed_ = limits.scan;
        if (s + 1 < steps.size() && steps[s + 1].radius == 0) prefetch_codes(steps[s + 1]);
        if (!ring(steps[s])) return false;
    }
}

template <class Collector>
void Prober<Collector>::prefetch_offsets(const uint64_t* query) const {
    for (const Table& table : tables_)
        __builtin_prefetch(&table.offsets[table.substring.of(query)]);
}

template <class Collector>
void Prober<Collector>::prefetch_postings(const uint64_t* query) const {
    for (const Table& table : tables_)
        __builtin_prefetch(&table.postings[table.offsets[table.substring.of(query)]]);
}

template <class Collector>
void Prober<Collector>::prefetch_codes(const Step& step) const {
    const Table& table = tables_[step.table];
    const uint32_t key = table.substring.of(query_);
    const uint32_t begin = table.offsets[key];
    const uint32_t end = std::min(table.offsets[key + 1], begin + kGroup);
    for (uint32_t p = begin; p < end; ++p) __builtin_prefetch(part_.code(table.postings[p]));
}

// All buckets whose key differs from the query's in exactly `radius` bits. False: too many codes.
template <class Collector>
bool Prober<Collector>::ring(const Step& step) {
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

template <class Collector>
bool Prober<Collector>::buckets(const Table& table) {
    uint32_t begin[kGroup], end[kGroup];
    for (int i = 0; i < n_keys_; ++i) {
        begin[i] = table.offsets[keys_[i]];
        end[i] = table.offsets[keys_[i] + 1];
        if (end[i] > begin[i]) __builtin_prefetch(&table.postings[begin[i]]);
    }
    const int n = n_keys_;
    n_keys_ = 0;
    probes_ += static_cast<uint64_t>(n);
    spent_ += static_cast<uint64_t>(n);
    for (int i = 0; i < n; ++i) {
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
    if (spent() > allowed_) return false;
    control_.poll();
    return true;
}

template <class Collector>
void Prober<Collector>::verify() {
    candidates_ += static_cast<uint64_t>(n_slots_);
    spent_ += static_cast<uint64_t>(n_slots_);
    switch (part_.words) {
        case 1: verify_words<1>(); break;
        case 2: verify_words<2>(); break;
        case 4: verify_words<4>(); break;
        default: verify_words<0>();
    }
    n_slots_ = 0;
}

template <class Collector>
template <int kWords>
void Prober<Collector>::verify_words() {
    for (int i = 0; i < n_slots_; ++i) {
        const uint64_t* code = part_.code(slots_[i]);
        const int distance = hamming(code, query_, kWords > 0 ? kWords : part_.words);
        if (distance > collector_->bound() || seen_before(code)) continue;
        const uint64_t ids = part_.count(slots_[i], filter_);
        if (ids > 0) collector_->add(distance, part_.number, slots_[i], ids);
    }
}

// A code met now in ring radius_[table_] of table_ was met before exactly if another table has been
// probed as far as the code's distance there. No set of visited codes is needed.
template <class Collector>
bool Prober<Collector>::seen_before(const uint64_t* code) const {
    for (uint32_t j = 0; j < tables_.size(); ++j) {
        if (j != table_ && radius_[j] >= 0 &&
            tables_[j].substring.distance(code, query_) <= radius_[j])
            return true;
    }
    return false;
}

template class Prober<KnnCollector>;
template class Prober<RangeCollector>;

}  // namespace dmih
