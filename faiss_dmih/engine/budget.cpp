#include "budget.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "collector.hpp"
#include "probe.hpp"
#include "simd/kernels.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

// A ring of more items than this share of the codes costs more than scanning all of them.
constexpr double kScan = 1.0 / 8;
constexpr uint32_t kChunk = 256;

template <class Collector>
class Visits {
public:
    Visits(const Part& part, const uint64_t* query, Collector& collector, uint64_t& left,
           const Control& control)
        : part_(part), query_(query), collector_(collector), left_(left), control_(control) {}

    void run() {
        std::optional<Prober<Collector>> prober;
        if (part_.segment != nullptr && !part_.segment->tables.empty()) {
            prober.emplace(part_, control_, stats());
            if (prober->run_within(query_, kScan * part_.slots, left_, collector_)) return;
        }
        if (left_ == 0) return;
        const uint64_t before = left_;
        const Clusters* clusters = part_.clusters();
        const Prober<Collector>* seen = prober ? &*prober : nullptr;
        if (clusters == nullptr)
            scan(0, part_.slots, seen);
        else
            scan(*clusters, seen);
        stats().scanned.fetch_add(before - left_, std::memory_order_relaxed);
    }

private:
    void scan(const Clusters& clusters, const Prober<Collector>* seen) {
        std::vector<uint16_t> distance(clusters.size());
        simd::active().distances(clusters.centres(), static_cast<int>(clusters.size()), part_.words,
                                 query_, distance.data());
        std::vector<uint32_t> order(clusters.size());
        std::iota(order.begin(), order.end(), 0u);
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t a, uint32_t b) { return distance[a] < distance[b]; });
        for (uint32_t c : order) {
            const int h = distance[c], bound = collector_.bound();
            const auto [begin, end] = clusters.range(c, h - bound, h + bound);
            scan(begin, end, seen);
        }
    }

    void scan(uint32_t begin, uint32_t end, const Prober<Collector>* seen) {
        uint32_t index[kChunk];
        uint16_t distance[kChunk];
        for (uint32_t at = begin, n; at < end && left_ > 0; at += n) {
            n = static_cast<uint32_t>(
                std::min<uint64_t>(left_, std::min<uint32_t>(kChunk, end - at)));
            left_ -= n;
            const int found = simd::active().rows(part_.code(at), static_cast<int>(n), part_.words,
                                                  query_, collector_.bound(), index, distance);
            for (int i = 0; i < found; ++i) {
                const uint32_t slot = at + index[i];
                if (distance[i] > collector_.bound()) continue;
                if (seen != nullptr && seen->seen(part_.code(slot))) continue;
                const uint64_t ids = part_.count(slot);
                if (ids > 0) collector_.add(distance[i], part_.number, slot, ids);
            }
            control_.poll();
        }
    }

    const Part& part_;
    const uint64_t* query_;
    Collector& collector_;
    uint64_t& left_;
    const Control& control_;
};

}  // namespace

template <class Collector>
void search_within(const std::vector<Part>& parts, const std::vector<const uint64_t*>& queries,
                   uint64_t max_codes, std::vector<Collector>& collectors, const Control& control) {
    const Timed timed(stats().budget_ns);
    std::vector<const Part*> largest_first;
    for (const Part& part : parts) largest_first.push_back(&part);
    std::stable_sort(largest_first.begin(), largest_first.end(),
                     [](const Part* a, const Part* b) { return a->ids() > b->ids(); });
    parallel_for(control, queries.size(), [&](size_t q) {
        uint64_t left = max_codes;
        for (const Part* part : largest_first)
            Visits<Collector>(*part, queries[q], collectors[q], left, control).run();
    });
    stats().queries.fetch_add(queries.size(), std::memory_order_relaxed);
}

template void search_within(const std::vector<Part>&, const std::vector<const uint64_t*>&, uint64_t,
                            std::vector<KnnCollector>&, const Control&);
template void search_within(const std::vector<Part>&, const std::vector<const uint64_t*>&, uint64_t,
                            std::vector<RangeCollector>&, const Control&);

}  // namespace dmih
