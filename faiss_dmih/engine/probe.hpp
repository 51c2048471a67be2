// The probe engine: multi-index hashing over one segment's tables, by its front.
#pragma once

#include <vector>

#include "collector.hpp"
#include "parallel.hpp"
#include "part.hpp"
#include "stats.hpp"

namespace dmih {

// Probes one part for one query after another. Looking up a bucket takes three dependent cache
// misses: its offsets, its entries, the codes they name. Keys go through the three stages in
// groups, each stage prefetching for the next, so that a group's misses overlap.
template <class Collector>
class Prober {
public:
    Prober(const Part& part, const Control& control, Stats& stats)
        : part_(part), tables_(part.segment->tables), control_(control), stats_(stats) {}
    ~Prober();  // adds to `stats`

    // Adds to `collector` every code of the part that can still matter to it. Given up: some of
    // them may be missing; what was found is true.
    // `glanced`: after glance(), which looked into the query's own buckets and kept what it found.
    Probed run(const uint64_t* query, const ProbeLimits& limits, Collector& collector,
               bool glanced);

    // The same for a search that may compare `left` codes: the front's first `steps`, but of the
    // query's own buckets only the smallest, which hold `entries` in all. True: nothing else of the
    // part can matter, or `left` is zero.
    bool run_within(const uint64_t* query, size_t steps, uint64_t entries, uint64_t& left,
                    Collector& collector);
    void prepare_to_run_within(size_t steps) { look_ahead(steps); }
    // After that: rho. A code has been compared if it is as near in one of the tables.
    const std::vector<int>& radius() const { return radius_; }

    // Looks into the query's own buckets, the front's first steps. False: they were too large, not
    // all was seen.
    bool glance(const uint64_t* query, Collector& collector);
    void prepare_glances() { look_ahead(part_.segment->front.own_buckets); }

    // For the rings that a query is going to need first. To be called some queries ahead, in this
    // order, so that their misses overlap with other work.
    void prefetch_offsets(const uint64_t* query) const;
    void prefetch_buckets(const uint64_t* query) const;

private:
    static constexpr int kGroup = 64;
    static constexpr int kFirstGroup = 16;
    static constexpr int kUnpolled = 64;  // groups between questions to `control`

    struct Bucket {
        Step step;
        uint32_t entries;
    };

    void begin(const uint64_t* query, Collector& collector);
    double items_of(const Bucket& bucket) const;
    void smallest_first();
    double spent() const { return spent_ + n_keys_; }
    template <class Visit>
    void each_first_bucket(const uint64_t* query, Visit visit) const;
    void look_ahead(size_t steps);
    void prefetch_bucket(const Table& table, uint32_t begin, uint32_t end, int most) const;
    void prefetch_codes(const Step& step) const;
    template <class Visit>
    void each_near(const Table& table, uint32_t begin, uint32_t end, int radius, Visit visit) const;
    bool ring(const Step& step);
    bool buckets(const Table& table);
    void verify();
    template <int kWords>
    void verify_words();
    bool seen_before(const uint64_t* code) const;

    const Part& part_;
    const std::vector<Table>& tables_;
    const Control& control_;
    Stats& stats_;
    uint64_t probes_ = 0, candidates_ = 0, compared_ = 0;  // over all queries
    uint64_t most_candidates_ = 0;  // with those of this query: each code once from each table
    size_t ahead_ = 0;              // steps to prefetch
    int unpolled_ = 0;

    uint64_t* left_ = nullptr;  // codes that may be compared; null: all
    const uint64_t* query_ = nullptr;
    Collector* collector_ = nullptr;
    std::vector<int> radius_;         // rho
    std::vector<Bucket> first_;       // this query's order of the front's first steps
    uint32_t table_ = 0;              // of the ring being probed
    double spent_ = 0, allowed_ = 0;  // items
    int n_keys_ = 0, n_slots_ = 0;
    uint32_t keys_[kGroup], slots_[kGroup];
};

}  // namespace dmih
