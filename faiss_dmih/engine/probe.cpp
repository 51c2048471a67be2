#include "probe.hpp"

#include <algorithm>
#include <limits>
#include <tuple>

namespace dmih {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kGlanceItems = 256;

// Whether the signatures sort out codes farther than `most`: of random ones they keep half at 16
// of their 32 bits, and reading them has its price.
bool signatures_tell(const Table& table, int most) {
    constexpr int kTelling = 15;
    return !table.signatures.empty() && most <= kTelling;
}

}  // namespace

template <class Collector>
Prober<Collector>::~Prober() {
    stats_.probes.fetch_add(probes_, std::memory_order_relaxed);
    stats_.candidates.fetch_add(candidates_, std::memory_order_relaxed);
    stats_.compared.fetch_add(compared_, std::memory_order_relaxed);
}

template <class Collector>
Probed Prober<Collector>::run(const uint64_t* query, const ProbeLimits& limits,
                              Collector& collector, bool glanced) {
    begin(query, collector);
    const Front& front = part_.segment->front;
    const std::vector<Step>& steps = front.steps;
    const size_t first = glanced ? front.own_buckets : 0;
    for (size_t s = 0; s < first; ++s) radius_[steps[s].table] = 0;
    const auto step_of = [&](size_t s) { return s < first_.size() ? first_[s].step : steps[s]; };
    double undecided = 0;
    bool decided = false;
    for (size_t s = first;; ++s) {
        // s steps done: every code at a distance < s has been seen.
        if (collector.bound() < static_cast<int64_t>(s) || s == steps.size()) {
            look_ahead(s);
            return {true, spent(), undecided};
        }
        const size_t need = static_cast<size_t>(collector.bound()) + 1;
        const bool open = need > steps.size();
        // This query's rings may be fuller or emptier than the mean: as the last ones, so the next.
        const double expected = front.items[s] - front.items[first];
        const double fullness = s == first ? 1 : std::max(spent() / expected, 0.25);
        const double rest = open ? kNever : fullness * (front.items[need] - front.items[s]);
        const double step = s < first_.size() ? items_of(first_[s])
                                              : fullness * (front.items[s + 1] - front.items[s]);
        if (rest <= limits.scan)
            decided = true;
        else if (spent() + step > limits.look)
            return {false, spent(), decided ? undecided : kNever};
        else if (!decided)
            undecided = spent() + step;
        // A ring may still hold far more than expected: never spend more than was thought fit.
        allowed_ = std::max(limits.scan, limits.look);
        if (s + 1 < steps.size() && steps[s + 1].radius == 0) prefetch_codes(step_of(s + 1));
        if (!ring(step_of(s))) return {false, spent(), undecided};
    }
}

template <class Collector>
bool Prober<Collector>::run_within(const uint64_t* query, size_t steps, uint64_t entries,
                                   uint64_t& left, Collector& collector) {
    begin(query, collector);
    left_ = &left;
    allowed_ = kNever;
    const Front& front = part_.segment->front;
    for (size_t s = 0;; ++s) {
        if (collector.bound() < static_cast<int64_t>(s) || s == front.steps.size()) return true;
        if (left == 0) return true;
        if (s == steps) return false;
        if (s < first_.size()) {
            if (first_[s].entries > entries) return false;
            entries -= first_[s].entries;
        }
        if (!ring(s < first_.size() ? first_[s].step : front.steps[s])) return true;
    }
}

template <class Collector>
void Prober<Collector>::begin(const uint64_t* query, Collector& collector) {
    query_ = query;
    collector_ = &collector;
    radius_.assign(tables_.size(), -1);
    spent_ = 0;
    n_keys_ = n_slots_ = 0;
    most_candidates_ = candidates_ + uint64_t{part_.slots} * tables_.size();
    smallest_first();
}

// While nothing is known every code is compared, soon hardly any.
template <class Collector>
double Prober<Collector>::items_of(const Bucket& bucket) const {
    const uint32_t compared =
        collector_->bounded() ? 0 : std::min<uint32_t>(bucket.entries, kGroup);
    return 1 + kEntryItems * bucket.entries + kComparedItems * compared;
}

template <class Collector>
bool Prober<Collector>::glance(const uint64_t* query, Collector& collector) {
    begin(query, collector);
    allowed_ = kGlanceItems;
    for (const Bucket& bucket : first_)
        if (!ring(bucket.step)) return false;
    return true;
}

// The buckets that the front begins with cost no more to look into: the smallest first, so that
// something is known before the large ones are met.
template <class Collector>
void Prober<Collector>::smallest_first() {
    const Front& front = part_.segment->front;
    first_.clear();
    for (size_t s = 0; s < front.own_buckets; ++s) {
        const Step& step = front.steps[s];
        const Table& table = tables_[step.table];
        const uint32_t key = table.substring.of(query_);
        const auto [begin, end] = table.bucket(key);
        const uint32_t entries = end - begin;
        size_t at = first_.size();
        first_.push_back({step, entries});
        for (; at > 0 && first_[at - 1].entries > entries; --at) first_[at] = first_[at - 1];
        first_[at] = {step, entries};
    }
}

// Calls visit(key) for the keys that differ from `key` in exactly `radius` of `bits` bits, until it
// returns false; returns whether it never did.
template <class Visit>
static bool each_key(uint32_t key, int bits, int radius, Visit visit) {
    if (radius == 0) return visit(key);
    const uint64_t end = uint64_t{1} << bits;
    uint64_t mask = (uint64_t{1} << radius) - 1;
    while (mask < end) {  // Gosper: the next number with as many bits set
        if (!visit(key ^ static_cast<uint32_t>(mask))) return false;
        const uint64_t low = mask & (0 - mask);
        const uint64_t carried = mask + low;
        mask = carried | (((mask ^ carried) >> 2) >> __builtin_ctzll(low));
    }
    return true;
}

template <class Collector>
template <class Visit>
void Prober<Collector>::each_first_bucket(const uint64_t* query, Visit visit) const {
    const std::vector<Step>& steps = part_.segment->front.steps;
    for (size_t s = 0; s < ahead_; ++s) {
        const Table& table = tables_[steps[s].table];
        each_key(table.substring.of(query), table.substring.bits, steps[s].radius,
                 [&](uint32_t key) {
                     visit(table, key);
                     return true;
                 });
    }
}

template <class Collector>
void Prober<Collector>::prefetch_offsets(const uint64_t* query) const {
    each_first_bucket(query, [](const Table& table, uint32_t key) { table.offsets.prefetch(key); });
}

template <class Collector>
void Prober<Collector>::prefetch_buckets(const uint64_t* query) const {
    each_first_bucket(query, [&](const Table& table, uint32_t key) {
        const auto [begin, end] = table.bucket(key);
        prefetch_bucket(table, begin, end, 0);
        // Little is known when the first buckets are met: most of their codes will be looked at.
        if (key == table.substring.of(query)) __builtin_prefetch(table.slots.data() + begin);
    });
}

// How many steps to prefetch for the next query: as many as this one took, if they are few buckets.
template <class Collector>
void Prober<Collector>::look_ahead(size_t steps) {
    constexpr double kBuckets = 32;
    double buckets = 0;
    for (ahead_ = 0; ahead_ < steps; ++ahead_) {
        const Step& step = part_.segment->front.steps[ahead_];
        buckets += binomial(tables_[step.table].substring.bits, step.radius);
        if (buckets > kBuckets) return;
    }
}

template <class Collector>
void Prober<Collector>::prefetch_bucket(const Table& table, uint32_t begin, uint32_t end,
                                        int most) const {
    if (begin == end) return;
    const Buffer<uint32_t>& first = signatures_tell(table, most) ? table.signatures : table.slots;
    __builtin_prefetch(&first[begin]);
    __builtin_prefetch(&first[end - 1]);
}

template <class Collector>
void Prober<Collector>::prefetch_codes(const Step& step) const {
    const Table& table = tables_[step.table];
    const auto [begin, end] = table.bucket(table.substring.of(query_));
    each_near(table, begin, std::min(end, begin + kGroup), step.radius,
              [&](uint32_t slot) { __builtin_prefetch(part_.code(slot)); });
}

// Calls visit(slot) for those of at most kGroup entries of a bucket, at distance `radius` in the
// table's substring, whose code may be within the collector's bound.
template <class Collector>
template <class Visit>
void Prober<Collector>::each_near(const Table& table, uint32_t begin, uint32_t end, int radius,
                                  Visit visit) const {
    const int most = collector_->bound() - radius;
    if (!signatures_tell(table, most)) {
        for (uint32_t p = begin; p < end; ++p) visit(table.slots[p]);
        return;
    }
    const uint32_t signature = table.signature.of(query_);
    for (uint32_t p = begin; p < end; ++p)
        if (__builtin_popcount(table.signatures[p] ^ signature) <= most) visit(table.slots[p]);
}

// All buckets whose key differs from the query's in exactly `radius` bits. False: too many codes.
template <class Collector>
bool Prober<Collector>::ring(const Step& step) {
    const Table& table = tables_[step.table];
    const uint32_t key = table.substring.of(query_);
    table_ = step.table;
    radius_[table_] = step.radius;
    const bool all = each_key(key, table.substring.bits, step.radius, [&](uint32_t at) {
        table.offsets.prefetch(at);
        keys_[n_keys_++] = at;
        return n_keys_ < kGroup || buckets(table);
    });
    if (!all) return false;
    if (!buckets(table)) return false;
    verify();
    return true;
}

template <class Collector>
bool Prober<Collector>::buckets(const Table& table) {
    uint32_t begin[kGroup], end[kGroup];
    const int most = collector_->bound() - radius_[table_];
    for (int i = 0; i < n_keys_; ++i) {
        std::tie(begin[i], end[i]) = table.bucket(keys_[i]);
        prefetch_bucket(table, begin[i], end[i], most);
    }
    const int n = n_keys_;
    n_keys_ = 0;
    probes_ += static_cast<uint64_t>(n);
    spent_ += n;
    for (int i = 0; i < n; ++i) {
        candidates_ += end[i] - begin[i];
        // Large buckets by pieces: the bound falls from one to the next.
        for (uint32_t p = begin[i]; p < end[i]; p += kGroup) {
            const uint32_t stop = std::min(end[i], p + kGroup);
            spent_ += kEntryItems * (stop - p);
            each_near(table, p, stop, radius_[table_], [&](uint32_t slot) {
                if (slot >= part_.slots) damaged();
                __builtin_prefetch(part_.code(slot));
                slots_[n_slots_++] = slot;
                // While nothing is known every code is compared: soon something will be.
                if (n_slots_ == (collector_->bounded() ? kGroup : kFirstGroup)) verify();
            });
            if (spent() > allowed_ || (left_ != nullptr && *left_ == 0)) return false;
        }
    }
    if (candidates_ > most_candidates_) damaged();
    if (++unpolled_ == kUnpolled) {
        control_.poll();
        unpolled_ = 0;
    }
    return true;
}

template <class Collector>
void Prober<Collector>::verify() {
    if (left_ != nullptr) {
        n_slots_ = static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(n_slots_), *left_));
        *left_ -= static_cast<uint64_t>(n_slots_);
    }
    compared_ += static_cast<uint64_t>(n_slots_);
    spent_ += kComparedItems * n_slots_;
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
        const uint64_t ids = part_.count(slots_[i]);
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
