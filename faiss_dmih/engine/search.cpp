// The searches of Index: part by part, who is probed and who is scanned (planner.hpp).
#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "budget.hpp"
#include "collector.hpp"
#include "damage.hpp"
#include "filtered.hpp"
#include "index.hpp"
#include "planner.hpp"
#include "probe.hpp"
#include "scan.hpp"
#include "scan_costs.hpp"
#include "sort.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

// Queries whose collectors are alive at once.
constexpr uint64_t kQueriesAtOnce = 4096;
constexpr uint64_t kFoundAtOnce = uint64_t{1} << 26;

// Rows of 64-bit words, and one pointer per query.
struct Queries {
    Buffer<uint64_t> rows;
    std::vector<const uint64_t*> at;

    Queries(uint64_t n, int words) : rows(n * static_cast<size_t>(words)) {
        for (uint64_t i = 0; i < n; ++i) at.push_back(rows.data() + i * words);
    }
};

// The answers of one query, (distance, id) ascending. Codes nearer than the k-th are fewer than k;
// of those tied with it each slot offers its smallest ids, the smallest of all win. `order` and
// `sorting` are scratch.
void write_knn(KnnCollector& collector, const std::vector<Part>& parts, uint64_t ntotal, uint64_t k,
               int32_t* D, int64_t* I, std::vector<uint64_t>& order,
               std::vector<uint64_t>& sorting) {
    constexpr int kIdBits = 32;  // an index has fewer than 2^32 codes
    order.clear();
    const std::vector<Found>& found = collector.found();
    for (const Found& f : found) parts[f.part()].prefetch_ids(f.slot());
    for (int tied = 0; tied < 2; ++tied) {
        const size_t nearer = order.size();
        for (const Found& f : found) {
            if ((f.distance() == collector.bound()) != (tied == 1)) continue;
            uint64_t left = k - nearer;
            parts[f.part()].for_each_id(f.slot(), [&](int64_t id) {
                order.push_back(static_cast<uint64_t>(f.distance()) << kIdBits |
                                static_cast<uint64_t>(id));
                return --left > 0;
            });
            if (order.size() > ntotal) damaged();
        }
    }
    const size_t answers = std::min<uint64_t>(order.size(), k);
    // A few too many are sorted with the others.
    if (order.size() > 2 * answers) {
        const auto kth = order.begin() + static_cast<std::ptrdiff_t>(answers);
        std::nth_element(order.begin(), kth, order.end());
        order.resize(answers);
    }
    sort_keys(order, sorting);
    for (size_t i = 0; i < k; ++i) {
        const bool real = i < answers;
        D[i] =
            real ? static_cast<int32_t>(order[i] >> kIdBits) : std::numeric_limits<int32_t>::max();
        I[i] = real ? static_cast<int64_t>(order[i] & 0xFFFFFFFF) : -1;
    }
}

using Clock = std::chrono::steady_clock;

double nanoseconds_between(Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration<double, std::nano>(end - start).count();
}

double nanoseconds_since(Clock::time_point start) {
    return nanoseconds_between(start, Clock::now());
}

// Probes one part for the queries of one call.
template <class Collector>
struct ProbePass {
    const Part& part;
    const std::vector<const uint64_t*>& queries;
    std::vector<Collector>& collectors;
    const Control& control;
    std::vector<uint8_t> glanced;  // by query; empty: nobody

    // As far as the planner thinks fit; to the end without one. Returns the queries given up.
    std::vector<size_t> run(const std::vector<size_t>& all, Planner* planner) const {
        std::vector<size_t> left;
        if (planner == nullptr) {
            probe(all, nullptr, [] { return ProbeLimits{}; }, left);
        } else if (!planner->large()) {
            probe(all, planner, [&] { return planner->next_look(); }, left);
        } else if (!planner->samples()) {
            left = all;
        } else {
            // The sample is spread over the batch.
            const size_t stride = all.size() / Planner::kSample;
            std::vector<size_t> sample, rest;
            for (size_t q : all) (q % stride == 0 ? sample : rest).push_back(q);
            const ProbeLimits longest = planner->longest_look();
            const std::vector<Probed> probed =
                probe(sample, planner, [&] { return longest; }, left, true);
            if (planner->asks_for_shares(probed)) {
                std::vector<double> shares;
                for (size_t q : sample)
                    shares.push_back(expected_share(part, queries[q], collectors[q]));
                planner->expect_scans(shares);
            }
            const std::optional<ProbeLimits> best = planner->best_look(probed, longest.tells_of);
            if (best)
                probe(rest, planner, [&] { return *best; }, left);
            else
                left.insert(left.end(), rest.begin(), rest.end());
        }
        return left;
    }

    // Only into the queries' own buckets.
    void glance() {
        glanced.resize(queries.size());
        parallel_for(control, (queries.size() + kGroup - 1) / kGroup, [&](size_t g) {
            const size_t end = std::min(queries.size(), (g + 1) * kGroup);
            Prober<Collector> prober(part, control, stats());
            prober.prepare_glances();
            for (size_t q = g * kGroup; q < end; ++q) {
                if (q + 2 < end) prober.prefetch_offsets(queries[q + 2]);
                if (q + 1 < end) prober.prefetch_buckets(queries[q + 1]);
                glanced[q] = prober.glance(queries[q], collectors[q]);
                if (!glanced[q]) forget(q);
            }
        });
    }

    // What was found, because all of the part is going to be searched again. The bound that it gave
    // is kept.
    void forget(size_t q) const {
        collectors[q].forget(part.number, [&](uint32_t slot) { return part.count(slot); });
    }

private:
    static constexpr size_t kGroup = 64;

    template <class Limits>
    std::vector<Probed> probe(const std::vector<size_t>& some, Planner* planner,
                              const Limits& next_limits, std::vector<size_t>& left,
                              bool sampling = false) const {
        std::vector<Probed> out(some.size());
        const size_t threads = static_cast<size_t>(std::max(control.threads(), 1));
        const size_t group = std::clamp<size_t>(some.size() / (2 * threads), 1, kGroup);
        // Of a query, by groups.
        struct Pace {
            double items = 0, ns = 0;
        };
        std::vector<Pace> paces((some.size() + group - 1) / group);
        const auto began = paces.size() > 1 ? Clock::now() : Clock::time_point();
        parallel_for(control, paces.size(), [&](size_t g) {
            const size_t end = std::min(some.size(), (g + 1) * group);
            Prober<Collector> prober(part, control, stats());
            const auto start = Clock::now();
            double spent = 0;
            for (size_t i = g * group; i < end; ++i) {
                if (i + 2 < end) prober.prefetch_offsets(queries[some[i + 2]]);
                if (i + 1 < end) prober.prefetch_buckets(queries[some[i + 1]]);
                const ProbeLimits limits = next_limits();
                if (limits.look <= 0 && !collectors[some[i]].bounded()) {
                    out[i] = {false, 0, 0};  // not even into its own buckets
                    continue;
                }
                out[i] = prober.run(queries[some[i]], limits, collectors[some[i]],
                                    !glanced.empty() && glanced[some[i]]);
                spent += out[i].spent;
                if (limits.tells_of > 0 && planner != nullptr && !planner->large())
                    planner->learn(out[i], limits.tells_of);
            }
            const double n = static_cast<double>(end - g * group);
            paces[g] = {spent / n, nanoseconds_since(start) / n};
        });
        double items = 0, worked = 0;
        for (const Pace& pace : paces) {
            items += pace.items;
            worked += pace.ns;
        }
        if (sampling) {
            planner->learn_sample(items, worked);
        } else if (planner != nullptr) {
            // A scan is timed as a whole, with the time that threads wait for each other; so that
            // both can be compared each group gets its share of that here, too; in a large batch it
            // is next to nothing.
            double waited = 1;
            if (paces.size() > 1 && !planner->large()) {
                const double all = planner->of_all_threads(nanoseconds_since(began));
                waited = std::clamp(all / (worked * static_cast<double>(group)), 1.0, 2.0);
            }
            for (const Pace& pace : paces)
                if (pace.items > 0) planner->learn_probe(pace.items, pace.ns * waited);
        }
        for (size_t i = 0; i < some.size(); ++i)
            if (!out[i].done) left.push_back(some[i]);
        return out;
    }
};

struct Answer {
    int64_t id;
    int distance;
    bool operator<(const Answer& other) const { return id < other.id; }
};

}  // namespace

// Whether the part has tables that may be used.
bool Index::probes(const Part& part) const {
    return part.segment != nullptr && !part.segment->tables.empty() &&
           engine_.load(std::memory_order_relaxed) != Engine::Scan;
}

// Adds to each collector all that can matter to its query, part by part.
template <class Collector>
void Index::run(const std::vector<Part>& parts, const std::vector<const uint64_t*>& queries,
                const Workload& workload, std::vector<Collector>& collectors,
                const Control& control) const {
    std::vector<size_t> all(queries.size());
    std::iota(all.begin(), all.end(), size_t{0});
    std::vector<ProbePass<Collector>> passes;
    size_t probing = 0;
    for (const Part& part : parts) {
        passes.push_back({part, queries, collectors, control, {}});
        probing += probes(part);
    }
    // With several segments a query's neighbours may all be in the last one, and the others would
    // be searched without a bound. But where slots are ids a scan takes it that what was found
    // before has smaller ids, and growth leaves no such segment before another one; a file may.
    const auto in_order = [](const Part& part) { return part.ids_ascend(); };
    if (Collector::kLearns && probing > 1 && options_.mode == Mode::Auto &&
        std::none_of(parts.begin(), parts.end() - 1, in_order)) {
        const Timed timed(stats().probe_ns);
        for (ProbePass<Collector>& pass : passes)
            if (probes(pass.part)) pass.glance();
    }
    for (const ProbePass<Collector>& pass : passes) {
        const Part& part = pass.part;
        const auto began = Clock::now();
        std::optional<Planner> planner;
        if (probes(part) && engine_.load(std::memory_order_relaxed) == Engine::Planned &&
            options_.mode == Mode::Auto)
            planner.emplace(*part.segment, scan_costs(words_), queries.size(), control.threads(),
                            workload.of(part.share));
        std::vector<size_t> left;
        if (probes(part) && !(planner && planner->scans_at_once())) {
            const Timed timed(stats().probe_ns);
            left = pass.run(all, planner ? &*planner : nullptr);
        } else {
            left = all;
        }
        std::vector<const uint64_t*> left_queries;
        std::vector<Collector*> left_collectors;
        for (size_t q : left) {
            if (probes(part)) pass.forget(q);
            left_queries.push_back(queries[q]);
            left_collectors.push_back(&collectors[q]);
        }
        if (probes(part)) stats().fallbacks.fetch_add(left.size(), std::memory_order_relaxed);
        const auto start = left.empty() ? began : Clock::now();
        if (!left.empty()) {
            const Timed timed(stats().scan_ns);
            scan(part, left_queries, left_collectors, control);
        }
        if (planner) {
            const auto end = Clock::now();
            planner->learn_scan(left.size(), nanoseconds_between(start, end));
            planner->learn_call(nanoseconds_between(began, end));
        }
        if (part.filter != nullptr && part.segment != nullptr)
            learn_filtered(part, queries.size(), workload, nanoseconds_since(began));
    }
    stats().queries.fetch_add(queries.size(), std::memory_order_relaxed);
}

void Index::search(uint64_t nq, const uint8_t* queries, int64_t k, int32_t* D, int64_t* I,
                   const Filter* filter, const Control& control, uint64_t max_codes,
                   uint8_t* codes) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    const uint64_t found = std::min<uint64_t>(static_cast<uint64_t>(k), size()) + 256;
    const uint64_t at_once = std::clamp<uint64_t>(kFoundAtOnce / found, 1, kQueriesAtOnce);
    const Workload workload{static_cast<uint64_t>(k), 0, options_.d};
    const FilteredParts all =
        filtered(filter, std::min(nq, at_once), workload, max_codes > 0, control);
    for (uint64_t first = 0; first < nq; first += at_once) {
        const uint64_t n = std::min(at_once, nq - first);
        Queries rows(n, words_);
        to_rows(queries + first * code_size(), n, rows.rows.data());
        const size_t distances = static_cast<size_t>(options_.d) + 1;
        std::vector<uint32_t> histograms(n * distances, 0);
        std::vector<KnnCollector> collectors;
        collectors.reserve(n);
        for (uint64_t q = 0; q < n; ++q)
            collectors.emplace_back(k, options_.d, &histograms[q * distances]);
        if (max_codes > 0)
            search_within(all.parts, rows.at, max_codes, collectors, control);
        else
            run(all.parts, rows.at, workload, collectors, control);
        const Timed timed(stats().answer_ns);
        // A thousand neighbours take as long to be put in order as many a scan: small batches are
        // shared out, too.
        const size_t threads = static_cast<size_t>(std::max(control.threads(), 1));
        const size_t group = k < 128 ? 64 : std::clamp<size_t>(n / (4 * threads), 1, 64);
        parallel_for(control, (n + group - 1) / group, [&](size_t g) {
            std::vector<uint64_t> order, sorting;
            for (size_t q = g * group; q < std::min<size_t>(n, (g + 1) * group); ++q) {
                control.poll();
                const size_t out = (first + q) * static_cast<size_t>(k);
                write_knn(collectors[q], all.parts, size(), static_cast<uint64_t>(k), D + out,
                          I + out, order, sorting);
            }
        });
    }
    if (codes == nullptr) return;
    const size_t bytes = static_cast<size_t>(code_size());
    for (uint64_t i = 0; i < nq * static_cast<uint64_t>(k); ++i, codes += bytes) {
        control.poll(i);
        if (I[i] < 0)
            std::memset(codes, 0xFF, bytes);
        else
            code_of(static_cast<uint64_t>(I[i]), codes);
    }
}

RangeResults Index::range_search(uint64_t nq, const uint8_t* queries, int radius,
                                 const Filter* filter, const Control& control,
                                 uint64_t max_codes) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    RangeResults out;
    out.lims.assign(nq + 1, 0);
    if (radius <= 0) return out;
    const int bound = std::min(radius - 1, options_.d);
    const Workload workload{0, bound, options_.d};
    const FilteredParts filtered_parts =
        filtered(filter, std::min(nq, kQueriesAtOnce), workload, max_codes > 0, control);
    const std::vector<Part>& all = filtered_parts.parts;
    std::vector<Answer> answers;
    for (uint64_t first = 0; first < nq; first += kQueriesAtOnce) {
        const uint64_t n = std::min(kQueriesAtOnce, nq - first);
        Queries rows(n, words_);
        to_rows(queries + first * code_size(), n, rows.rows.data());
        std::vector<RangeCollector> collectors(n, RangeCollector(bound));
        if (max_codes > 0)
            search_within(all, rows.at, max_codes, collectors, control);
        else
            run(all, rows.at, workload, collectors, control);
        const Timed timed(stats().answer_ns);
        for (uint64_t q = 0; q < n; ++q) {
            control.poll();
            answers.clear();
            for (const Found& f : collectors[q].found()) {
                all[f.part()].for_each_id(f.slot(), [&](int64_t id) {
                    answers.push_back({id, f.distance()});
                    return true;
                });
                if (answers.size() > size()) damaged();
            }
            std::sort(answers.begin(), answers.end());
            for (const Answer& answer : answers) {
                out.ids.push_back(answer.id);
                out.distances.push_back(static_cast<float>(answer.distance));
            }
            out.lims[first + q + 1] = out.ids.size();
        }
    }
    return out;
}

}  // namespace dmih
