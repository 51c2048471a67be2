#include "budget.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "blocks.hpp"
#include "collector.hpp"
#include "hamming.hpp"
#include "probe.hpp"
#include "scan_costs.hpp"
#include "simd/kernels.hpp"
#include "slices.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

// Where there are clusters they show what is near in less time than tables do, but for what is
// equal to the query in a whole substring and to few other codes. So of a query's own buckets the
// smallest are looked into, which hold so many entries, and rings as far as they are expected to
// take so many items. Without clusters rings are probed until one takes more items than this share
// of the codes, which is more than comparing them all.
constexpr uint64_t kFewEntries = 128;
constexpr double kFewItems = 64;
constexpr double kScan = 1.0 / 8;
// Codes after which a query has a bound that says which slices cannot matter.
constexpr uint64_t kFirstCodes = 1024, kFirstCodesPerK = 8;
constexpr size_t kQueries = 1024;            // that share a block's planes
constexpr size_t kWanted = size_t{1} << 20;  // slices that these may wait for

// What the searches of one part have in common.
struct Place {
    const Part& part;
    const Control& control;
    size_t steps = 0;                                         // of the front
    uint64_t entries = std::numeric_limits<uint64_t>::max();  // of the query's own buckets
    Slices in_order;                                          // where there are no clusters
    const Slices& slices;

    Place(const Part& searched, const Control& its_control)
        : part(searched),
          control(its_control),
          slices(part.clusters() == nullptr ? in_order : part.clusters()->slices()) {
        if (part.clusters() == nullptr) in_order.add(0, part.slots);
        if (part.segment == nullptr || part.segment->tables.empty()) return;
        const Front& front = part.segment->front;
        if (part.clusters() == nullptr) {
            while (steps < front.steps.size() &&
                   front.items[steps + 1] - front.items[steps] <= kScan * part.slots)
                ++steps;
        } else {
            entries = kFewEntries;
            steps = front.own_buckets;
            while (steps < front.steps.size() && front.items[steps + 1] <= kFewItems) ++steps;
        }
    }
};

// Some queries in one part. Which slices a query visits is settled by itself alone; those that many
// want are compared with all of them at once, which changes no answer: it is what is nearest among
// the codes visited, in whatever order.
template <class Collector>
class Visits {
public:
    Visits(const Place& place, const uint64_t* const* queries, size_t nq, Collector* collectors,
           uint64_t* left)
        : place_(place),
          part_(place.part),
          slices_(place.slices.all),
          queries_(queries),
          nq_(nq),
          collectors_(collectors),
          left_(left),
          to_centre_(place.slices.centres()),
          order_(place.slices.centres()),
          sizes_(kRanks) {}

    void run() {
        std::vector<uint8_t> done(nq_, 0);
        if (place_.steps > 0) probe(done);
        for (size_t q = 0; q < nq_; ++q) {
            if (!done[q] && left_[q] > 0) plan(q);
            if (wanted_.size() > kWanted) fold_all();
        }
        if (!wanted_.empty()) fold_all();
        stats().scanned.fetch_add(visited_, std::memory_order_relaxed);
    }

private:
    struct Opened {
        uint32_t slice;
        uint16_t rank;
        bool chosen = false;
    };
    struct Chosen {
        uint32_t slice, begin, n;
        bool whole;
    };
    struct Wanted {
        uint32_t slice, query;
    };
    struct Near {
        uint32_t slot, query;
    };

    void probe(std::vector<uint8_t>& done) {
        Prober<Collector> prober(part_, place_.control, stats());
        prober.prepare_to_run_within(place_.steps);
        for (size_t q = 0; q < nq_; ++q) {
            if (q + 2 < nq_) prober.prefetch_offsets(queries_[q + 2]);
            if (q + 1 < nq_) prober.prefetch_buckets(queries_[q + 1]);
            done[q] = prober.run_within(queries_[q], place_.steps, place_.entries, left_[q],
                                        collectors_[q]);
            radius_.insert(radius_.end(), prober.radius().begin(), prober.radius().end());
        }
    }

    // The first slices at once. They give a bound, and slices beyond it are left out: nothing in
    // them could be answered by a search that has come so far, so a larger budget still never makes
    // an answer worse.
    void plan(size_t q) {
        place_.control.poll();
        const uint64_t first = kFirstCodes + kFirstCodesPerK * collectors_[q].k();
        order_centres(q);
        open(first, d_);
        choose(q, first);
        first_bound(q);
        for (const Chosen& c : chosen_) rows(q, c.begin, c.n);
        if (left_[q] == 0) return;
        const int bound = collectors_[q].bound();
        forget_beyond(bound);
        open(left_[q], bound);
        choose(q, left_[q]);
        const bool folding = scan_costs(part_.words).blocks_pay(nq_);
        for (const Chosen& c : chosen_) {
            if (folding && c.whole)
                wanted_.push_back({c.slice, static_cast<uint32_t>(q)});
            else
                rows(q, c.begin, c.n);
        }
    }

    // Centres from the nearest to the farthest.
    void order_centres(size_t q) {
        if (part_.clusters() != nullptr)
            simd::active().distances(part_.clusters()->centres(),
                                     static_cast<int>(to_centre_.size()), part_.words, queries_[q],
                                     to_centre_.data());
        at_distance_.assign(static_cast<size_t>(d_) + 2, 0);
        for (uint16_t h : to_centre_) ++at_distance_[h + 1u];
        for (size_t h = 1; h < at_distance_.size(); ++h) at_distance_[h] += at_distance_[h - 1];
        for (uint32_t c = 0; c < order_.size(); ++c) order_[at_distance_[to_centre_[c]]++] = c;
        opened_.clear();
        next_ = 0;
        std::fill(sizes_.begin(), sizes_.end(), 0u);
    }

    // Ranks the slices of the next centres, but for those beyond the bound, until they hold
    // `enough` codes of ranks that no slice of the others can be below.
    void open(uint64_t enough, int bound) {
        uint64_t sure = 0;
        for (int rank = 0; next_ < order_.size(); ++next_) {
            const uint32_t c = order_[next_];
            const int h = to_centre_[c], place = on_grid(h, part_.words);
            for (const int least = least_rank(place, place_.slices.widest); rank < least; ++rank)
                sure += sizes_[rank];
            if (sure >= enough) return;
            const uint16_t* const ranks = ranks_at(place);
            for (uint32_t p = place_.slices.first[c]; p < place_.slices.first[c + 1]; ++p) {
                const Slice& slice = slices_[p];
                if (h - slice.to > bound || slice.from - h > bound) continue;
                opened_.push_back({p, ranks[slice.middle]});
                sizes_[ranks[slice.middle]] += slice.end - slice.begin;
            }
        }
    }

    // What has been chosen, and what is beyond the bound, is not to be chosen any more.
    void forget_beyond(int bound) {
        size_t kept = 0;
        std::fill(sizes_.begin(), sizes_.end(), 0u);
        for (const Opened& o : opened_) {
            const Slice& slice = slices_[o.slice];
            const int h = to_centre_[slice.centre];
            if (o.chosen || h - slice.to > bound || slice.from - h > bound) continue;
            sizes_[o.rank] += slice.end - slice.begin;
            opened_[kept++] = o;
        }
        opened_.resize(kept);
    }

    // The best slices until they hold `enough` codes, the last of them whole if the budget allows.
    void choose(size_t q, uint64_t enough) {
        chosen_.clear();
        enough = std::min(enough, left_[q]);
        int worst = 0, best = kRanks;
        uint64_t better = 0;
        for (; worst < kRanks && better + sizes_[worst] < enough; ++worst) better += sizes_[worst];
        uint64_t tied = better < enough ? enough - better : 0, room = left_[q] - better;
        left_[q] -= better;
        for (Opened& o : opened_) {
            if (o.rank > worst || (o.rank == worst && tied == 0)) continue;
            const Slice& slice = slices_[o.slice];
            const uint32_t size = slice.end - slice.begin;
            uint32_t n = size;
            if (o.rank == worst) {
                n = static_cast<uint32_t>(std::min<uint64_t>(n, room));
                tied -= std::min<uint64_t>(tied, n);
                room -= n;
                left_[q] -= n;
            }
            o.chosen = true;
            chosen_.push_back({o.slice, slice.begin, n, n == size});
            if (o.rank < best) std::swap(chosen_.front(), chosen_.back());
            best = std::min<int>(best, o.rank);
        }
    }

    // Counting the codes of a slice as hits costs more than it tells: their k-th smallest distance.
    void first_bound(size_t q) {
        if (chosen_.empty() || !Collector::kLearns || part_.filter != nullptr) return;
        const Chosen best = chosen_.front();
        const uint64_t k = collectors_[q].k();
        if (best.n < k || collectors_[q].full()) return;
        uint16_t distance[kSliceCodes];
        const simd::Kernels& kernels = simd::active();
        kernels.distances(part_.code(best.begin), static_cast<int>(best.n), part_.words,
                          queries_[q], distance);
        collectors_[q].lower_bound_to(
            kernels.kth_smallest(distance, static_cast<int>(best.n), static_cast<int>(k)));
    }

    void rows(size_t q, uint32_t begin, uint32_t n) {
        uint32_t index[kSliceCodes];
        uint16_t distance[kSliceCodes];
        const int found = simd::active().rows(part_.code(begin), static_cast<int>(n), part_.words,
                                              queries_[q], collectors_[q].bound(), index, distance);
        for (int i = 0; i < found; ++i) hit(q, distance[i], begin + index[i]);
        visited_ += n;
    }

    void hit(size_t q, int distance, uint32_t slot) {
        Collector& collector = collectors_[q];
        if (distance > collector.bound()) return;
        if (!radius_.empty() && shown(q, part_.code(slot))) return;
        const uint64_t ids = part_.count(slot);
        if (ids > 0) collector.add(distance, part_.number, slot, ids);
    }

    // Whether the tables have shown a code to a query.
    bool shown(size_t q, const uint64_t* code) const {
        const std::vector<Table>& tables = part_.segment->tables;
        const int* const radius = &radius_[q * tables.size()];
        for (size_t j = 0; j < tables.size(); ++j)
            if (radius[j] >= 0 && tables[j].substring.distance(code, queries_[q]) <= radius[j])
                return true;
        return false;
    }

    // Slice by slice, each for the queries that want it.
    void fold_all() {
        std::vector<uint32_t> end(slices_.size() + 1, 0);
        for (const Wanted& w : wanted_) ++end[w.slice + 1];
        for (size_t p = 0; p < slices_.size(); ++p) end[p + 1] += end[p];
        std::vector<uint32_t> by_slice(wanted_.size()), at(end.begin(), end.end() - 1);
        for (const Wanted& w : wanted_) by_slice[at[w.slice]++] = w.query;
        BlockKernel kernel(queries_, nq_, part_.words);
        bounds_.resize(nq_);
        for (size_t q = 0; q < nq_; ++q) bounds_[q] = collectors_[q].bound();
        hits_.resize(nq_);
        for (uint32_t p = 0; p < slices_.size(); ++p) {
            const uint32_t* const list = by_slice.data() + end[p];
            const size_t n = end[p + 1] - end[p];
            if (n == 0) continue;
            const uint32_t begin = slices_[p].begin, stop = slices_[p].end;
            if (!scan_costs(part_.words).blocks_pay(n)) {
                for (size_t i = 0; i < n; ++i) {
                    rows(list[i], begin, stop - begin);
                    bounds_[list[i]] = collectors_[list[i]].bound();
                }
                continue;
            }
            const uint32_t block = kernel.codes();
            for (uint32_t slot = begin; slot < stop; slot += std::min(block, stop - slot))
                fold(kernel, slot, std::min(block, stop - slot), list, n);
            visited_ += uint64_t{n} * (stop - begin);
            place_.control.poll();
        }
        wanted_.clear();
    }

    // A block of codes; a slice is one with the longest registers, several with others.
    void fold(BlockKernel& kernel, uint32_t at, uint32_t n, const uint32_t* list, size_t n_list) {
        kernel.load(part_.code(at), part_.slots - at, n_list);
        const int found =
            kernel.compare(bounds_.data(), list, static_cast<int>(n_list), hits_.data());
        near_.clear();
        for (int h = 0; h < found; ++h) {
            const simd::BlockHit& of = hits_[static_cast<size_t>(h)];
            for (uint32_t lanes = of.lanes; lanes != 0; lanes &= lanes - 1) {
                const int lane = __builtin_ctz(lanes);
                for (uint64_t mask = of.mask[lane]; mask != 0; mask &= mask - 1) {
                    const uint32_t row = kernel.code_of(lane, __builtin_ctzll(mask));
                    if (row >= n) continue;
                    part_.prefetch_count(at + row);
                    near_.push_back({at + row, of.query});
                }
            }
        }
        // What a hit touches is in no near cache: their misses overlap.
        for (const Near& near : near_) collectors_[near.query].prefetch();
        for (const auto [slot, q] : near_) {
            hit(q, hamming(part_.code(slot), queries_[q], part_.words), slot);
            bounds_[q] = collectors_[q].bound();
        }
    }

    const Place& place_;
    const Part& part_;
    const std::vector<Slice>& slices_;
    const uint64_t* const* queries_;
    size_t nq_;
    Collector* collectors_;
    uint64_t* left_;
    uint64_t visited_ = 0;
    std::vector<int> radius_;  // by query and table: how far it has been probed

    const int d_ = 64 * part_.words;
    std::vector<uint16_t> to_centre_;
    std::vector<uint32_t> order_, at_distance_;
    size_t next_ = 0;              // in that order: the first that is not opened
    std::vector<Opened> opened_;   // slices that may be chosen
    std::vector<uint32_t> sizes_;  // their codes, by rank
    std::vector<Chosen> chosen_;
    std::vector<Wanted> wanted_;
    std::vector<Near> near_;

    std::vector<int32_t> bounds_;
    std::vector<simd::BlockHit> hits_;
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
    std::vector<uint64_t> left(queries.size(), max_codes);
    const size_t threads = static_cast<size_t>(std::max(control.threads(), 1));
    const size_t group = std::clamp<size_t>((queries.size() + threads - 1) / threads, 1, kQueries);
    for (const Part* part : largest_first) {
        const Place place(*part, control);
        parallel_for(control, (queries.size() + group - 1) / group, [&](size_t g) {
            const size_t first = g * group;
            const size_t n = std::min(group, queries.size() - first);
            Visits<Collector>(place, &queries[first], n, &collectors[first], &left[first]).run();
        });
    }
    stats().queries.fetch_add(queries.size(), std::memory_order_relaxed);
}

template void search_within(const std::vector<Part>&, const std::vector<const uint64_t*>&, uint64_t,
                            std::vector<KnnCollector>&, const Control&);
template void search_within(const std::vector<Part>&, const std::vector<const uint64_t*>&, uint64_t,
                            std::vector<RangeCollector>&, const Control&);

}  // namespace dmih
