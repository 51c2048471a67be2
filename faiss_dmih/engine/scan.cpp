#include "scan.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>
#include <tuple>

#include "blocks.hpp"
#include "scan_costs.hpp"
#include "simd/kernels.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

using simd::BlockHit;
using simd::Kernels;

constexpr uint32_t kRowChunk = 1024;    // rows per call: the bound falls between calls
constexpr size_t kFoldQueries = 1024;   // queries that share a block's planes in one task
constexpr size_t kFoldEnough = 128;     // fewer do not pay for planes of their own
constexpr uint32_t kFewCodes = 4096;    // not worth sharing out among threads
constexpr uint32_t kFirstCodes = 1024;  // to look at for a first bound, and for each of k
constexpr uint32_t kFirstCodesPerK = 16;

// The codes that a scan takes its first bound from: of the nearest cluster that has k those that
// are about as far from its centre as the query is. Near ones are among them, and all of a large
// cluster would cost more than it tells. (Without a bound, a query that is far from everything
// would meet a cluster's codes from its centre outwards, each nearer to it than those before.)
struct FirstCodes {
    uint32_t begin, end;

    FirstCodes(const Part& part, const uint16_t* to_centre, uint64_t k) {
        const Clusters& clusters = *part.clusters();
        const auto nearest = std::min_element(to_centre, to_centre + clusters.size());
        uint32_t c = static_cast<uint32_t>(nearest - to_centre);
        if (clusters.codes_of(c) < k) {
            int least = std::numeric_limits<int>::max();
            for (uint32_t other = 0; other < clusters.size(); ++other) {
                if (to_centre[other] >= least || clusters.codes_of(other) < k) continue;
                least = to_centre[other];
                c = other;
            }
        }
        const int h = to_centre[c];
        std::tie(begin, end) = clusters.range(c, h, h);
        const uint64_t enough = kFirstCodes + kFirstCodesPerK * k;
        for (int width = 1; end - begin < enough && width < 128 * part.words; width *= 2)
            std::tie(begin, end) = clusters.range(c, h - width, h + width);
    }

    // Within it are k of them; a slot is one id at least.
    int bound(const Part& part, const uint64_t* query, uint64_t k) const {
        const uint32_t n = end - begin;
        if (n < k) return 64 * part.words;
        std::vector<uint16_t> distance(n);
        const Kernels& kernels = simd::active();
        kernels.distances(part.code(begin), static_cast<int>(n), part.words, query,
                          distance.data());
        return kernels.kth_smallest(distance.data(), static_cast<int>(n), static_cast<int>(k));
    }
};

// How far the k-th nearest code of a part will be, about: told from codes spread over it. Where k
// is large that is far less than what the nearest cluster can promise, and a code that is taken and
// dropped later costs as much as comparing some hundred. A guess may be too low: then the query is
// scanned again.
class Guesser {
public:
    Guesser(const Part& part, uint64_t k) : part_(part) {
        constexpr uint32_t kNearest = 64;  // of the k nearest, so many in the sample
        constexpr uint32_t kWorthwhile = 8;
        constexpr uint32_t kPart = 4;  // nearly all of them are not worth a guess
        if (k == 0 || k > part.slots / kPart || part.filter != nullptr) return;
        runs_ = static_cast<uint32_t>(uint64_t{part.slots} * kNearest / k / kRun) + 1;
        if (runs_ > part.slots / kRun / kWorthwhile) {
            runs_ = 0;
            return;
        }
        const double share = double(runs_) * kRun / part.slots;
        const double expected = share * static_cast<double>(k);
        // Neighbours in a run are alike: as if of three codes one counted.
        rank_ = static_cast<int>(expected + 3 * std::sqrt(3 * expected)) + 1;
    }

    bool guesses() const { return runs_ > 0; }

    int operator()(const uint64_t* query) const {
        std::vector<uint16_t> distance(size_t{runs_} * kRun);
        for (uint32_t r = 0; r < runs_; ++r) {
            const uint64_t at = uint64_t{r} * (part_.slots - kRun) / runs_;
            simd::active().distances(part_.code(static_cast<uint32_t>(at)), kRun, part_.words,
                                     query, &distance[size_t{r} * kRun]);
        }
        return simd::active().kth_smallest(distance.data(), static_cast<int>(distance.size()),
                                           rank_);
    }

private:
    static constexpr uint32_t kRun = 16;

    const Part& part_;
    uint32_t runs_ = 0;
    int rank_ = 0;
};

// One call of scan(): what its tasks have in common.
template <class Collector>
class Scan {
public:
    Scan(const Part& part, const std::vector<const uint64_t*>& queries,
         const std::vector<Collector*>& collectors, const Control& control)
        : part_(part),
          queries_(queries),
          collectors_(collectors),
          control_(control),
          kernels_(simd::active()),
          costs_(scan_costs(part.words)),
          block_(64u * static_cast<uint32_t>(kernels_.lanes)),
          clusters_(part.clusters()),
          most_(queries.size(), kNoGuess) {}

    // `guessing`: may miss codes of some queries. Returns which.
    std::vector<size_t> run(bool guessing) {
        if (clusters_ != nullptr) approach();
        if (guessing) guess();
        const size_t nq = queries_.size();
        const size_t threads = static_cast<size_t>(std::max(control_.threads(), 1));
        const bool by_block = costs_.blocks_pay(nq);
        // Threads share the queries if there are enough of them, otherwise the codes.
        if (threads == 1 || nq >= (by_block ? kFoldEnough : 1) * threads || part_.slots < kFewCodes)
            share_queries(by_block, threads);
        else
            share_codes(by_block, threads);
        stats().scanned.fetch_add(visited_.load(), std::memory_order_relaxed);
        std::vector<size_t> missed;
        for (size_t q = 0; q < nq; ++q)
            if (bound_of(*collectors_[q]) > most_[q]) missed.push_back(q);
        return missed;
    }

private:
    static constexpr int32_t kNoGuess = std::numeric_limits<int32_t>::max();

    // Queries [first, first + n) with the collectors that a task fills for them.
    struct Batch {
        size_t first, n;
        Collector* const* collectors;
    };

    void share_queries(bool by_block, size_t threads) {
        const size_t nq = queries_.size();
        size_t group = 1;
        if (by_block) {
            const size_t rounds = (nq + kFoldQueries * threads - 1) / (kFoldQueries * threads);
            group = (nq + rounds * threads - 1) / (rounds * threads);
        }
        parallel_for(control_, (nq + group - 1) / group, [&](size_t g) {
            const size_t first = g * group;
            const Batch batch{first, std::min(group, nq - first), &collectors_[first]};
            if (by_block)
                blocks(batch, 0, part_.slots);
            else
                rows(batch, 0, part_.slots);
        });
    }

    // Every task has collectors of its own, which start from the bounds known so far.
    void share_codes(bool by_block, size_t threads) {
        const uint32_t range =
            static_cast<uint32_t>((uint64_t{part_.slots} / (2 * threads) / block_ + 1) * block_);
        std::mutex merging;
        parallel_for(control_, (uint64_t{part_.slots} + range - 1) / range, [&](size_t r) {
            std::vector<Collector> own;
            std::vector<Collector*> pointers;
            {
                std::lock_guard<std::mutex> lock(merging);
                for (const Collector* collector : collectors_)
                    own.push_back(collector->empty_copy());
            }
            for (Collector& collector : own) pointers.push_back(&collector);
            const uint32_t begin = static_cast<uint32_t>(r) * range;
            const uint32_t end =
                static_cast<uint32_t>(std::min<uint64_t>(uint64_t{begin} + range, part_.slots));
            const Batch batch{0, queries_.size(), pointers.data()};
            if (by_block)
                blocks(batch, begin, end);
            else
                rows(batch, begin, end);
            std::lock_guard<std::mutex> lock(merging);
            for (size_t q = 0; q < own.size(); ++q)
                for (const Found& f : own[q].found())
                    collectors_[q]->add(f.distance(), f.part(), f.slot(), part_.count(f.slot()));
        });
    }

    // The distances to all centres, and a first bound from codes of the nearest cluster. These are
    // met again with the others: only the bound is kept.
    void approach() {
        const size_t nq = queries_.size();
        const size_t count = clusters_->size();
        to_centre_ = Buffer<uint16_t>(nq * count);
        constexpr size_t kGroup = 32;  // as many distances fill a cache line of to_centre_
        parallel_for(control_, (nq + kGroup - 1) / kGroup, [&](size_t g) {
            const size_t first = g * kGroup, n = std::min(kGroup, nq - first);
            std::vector<uint16_t> distance(n * count);
            for (size_t i = 0; i < n; ++i) {
                uint16_t* const own = &distance[i * count];
                kernels_.distances(clusters_->centres(), static_cast<int>(count), part_.words,
                                   queries_[first + i], own);
                if (Collector::kLearns) first_bound(first + i, own);
            }
            for (size_t c = 0; c < count; ++c)
                for (size_t i = 0; i < n; ++i)
                    to_centre_[c * nq + first + i] = distance[i * count + c];
        });
    }

    // Codes farther than most_[q] are left out.
    void guess() {
        const Guesser guesser(part_, collectors_.front()->k());
        if (!guesser.guesses()) return;
        parallel_for(control_, queries_.size(), [&](size_t q) { most_[q] = guesser(queries_[q]); });
    }

    void first_bound(size_t q, const uint16_t* to_centre) {
        const uint64_t k = collectors_[q]->k();
        const FirstCodes first(part_, to_centre, k);
        if (part_.filter != nullptr) {
            scan_rows(q, *collectors_[q], first.begin, first.end);
            collectors_[q]->forget(part_.number, [&](uint32_t slot) { return part_.count(slot); });
            return;
        }
        collectors_[q]->lower_bound_to(first.bound(part_, queries_[q], k));
        visited_.fetch_add(first.end - first.begin, std::memory_order_relaxed);
    }

    // Where slots are ids in order, codes tied with the k-th lose to those already found.
    int bound_of(const Collector& collector) const {
        return part_.ids_ascend() ? collector.bound_for_later_ids() : collector.bound();
    }

    void hit(Collector& collector, int distance, uint32_t slot) const {
        if (distance > collector.bound()) return;
        const uint64_t ids = part_.count(slot);
        if (ids > 0) collector.add(distance, part_.number, slot, ids);
    }

    // The same for query q, as far as it is scanned.
    int bound_of(size_t q, const Collector& collector) const {
        return std::min(bound_of(collector), most_[q]);
    }

    void scan_rows(size_t q, Collector& collector, uint32_t begin, uint32_t end) {
        uint32_t index[kRowChunk];
        uint16_t distance[kRowChunk];
        // While nothing is known everything is a hit: look at a few first.
        uint32_t chunk = collector.full() ? kRowChunk : kRowChunk / 16;
        for (uint32_t at = begin, n; at < end; at += n, chunk = std::min(2 * chunk, kRowChunk)) {
            n = std::min(chunk, end - at);
            const int found = kernels_.rows(part_.code(at), static_cast<int>(n), part_.words,
                                            queries_[q], bound_of(q, collector), index, distance);
            for (int i = 0; i < found; ++i) hit(collector, distance[i], at + index[i]);
            control_.poll();
        }
        if (begin < end) visited_.fetch_add(end - begin, std::memory_order_relaxed);
    }

    // Query by query, nearest clusters first, so that the bound falls early.
    void rows(const Batch& batch, uint32_t begin, uint32_t end) {
        for (size_t i = 0; i < batch.n; ++i) {
            const size_t q = batch.first + i;
            Collector& collector = *batch.collectors[i];
            if (clusters_ == nullptr) {
                scan_rows(q, collector, begin, end);
                continue;
            }
            const uint32_t count = clusters_->size();
            const uint16_t* distance = to_centre_.data() + q;
            const size_t stride = queries_.size();
            std::vector<uint32_t> order(count);
            std::iota(order.begin(), order.end(), 0u);
            std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
                return distance[a * stride] < distance[b * stride];
            });
            for (uint32_t c : order) {
                const int h = distance[c * stride], bound = std::min(collector.bound(), most_[q]);
                const auto [low, high] = clusters_->range(c, h - bound, h + bound);
                scan_rows(q, collector, std::max(low, begin), std::min(high, end));
            }
        }
    }

    // Block by block, each for the queries that need it. `begin` is a multiple of the block.
    void blocks(const Batch& batch, uint32_t begin, uint32_t end) {
        Fold state{batch,
                   BlockKernel(&queries_[batch.first], batch.n, part_.words),
                   std::vector<int32_t>(batch.n),
                   std::vector<uint16_t>(batch.n),
                   std::vector<BlockHit>(batch.n),
                   {},
                   0};
        for (size_t q = 0; q < batch.n; ++q) renew_bound(state, q);
        std::vector<uint32_t> list(batch.n);
        std::iota(list.begin(), list.end(), 0u);
        std::vector<uint64_t> need((batch.n + 63) / 64);
        std::vector<Shell> shells;
        for (uint32_t at = begin; at < end; at += std::min(block_, end - at)) {
            const uint32_t n = std::min(block_, end - at);
            if (clusters_ != nullptr) {
                shells.clear();
                clusters_->shells(at, at + n, shells);
                std::fill(need.begin(), need.end(), uint64_t{0});
                for (const Shell& shell : shells)
                    kernels_.select(
                        to_centre_.data() + shell.centre * queries_.size() + batch.first,
                        state.bound16.data(), static_cast<int>(batch.n), shell.from, shell.to,
                        need.data());
                list.clear();
                for (size_t i = 0; i < need.size(); ++i)
                    for (uint64_t left = need[i]; left != 0; left &= left - 1)
                        list.push_back(static_cast<uint32_t>(i * 64 + __builtin_ctzll(left)));
                if (!costs_.blocks_pay(list.size())) {
                    for (uint32_t q : list) {
                        scan_rows(batch.first + q, *batch.collectors[q], at, at + n);
                        renew_bound(state, q);
                    }
                    continue;
                }
            }
            state.kernel.load(part_.code(at), n, list.size());
            if (at == begin && clusters_ == nullptr && part_.filter == nullptr)
                first_block(state, list, at, n);
            else
                take(state, list, at, n);
            visited_.fetch_add(uint64_t{n} * list.size(), std::memory_order_relaxed);
            control_.poll();
        }
    }

    static constexpr int kNear = 64;
    struct Near {
        uint32_t query, row;
    };

    struct Fold {
        Batch batch;
        BlockKernel kernel;
        std::vector<int32_t> bound;
        std::vector<uint16_t> bound16;  // the same for `select`
        std::vector<BlockHit> hits;
        Near near[kNear];  // codes within a query's bound, not yet taken
        int n_near = 0;
    };

    void renew_bound(Fold& state, size_t q) const {
        state.bound[q] = bound_of(state.batch.first + q, *state.batch.collectors[q]);
        state.bound16[q] = static_cast<uint16_t>(std::max(state.bound[q], 0));
    }

    void take(Fold& state, const std::vector<uint32_t>& list, uint32_t at, uint32_t n) const {
        if (list.empty()) return;
        // Meanwhile the codes of the next block come nearer, some lines for some queries: nobody
        // else fetches them, and they would be waited for.
        constexpr size_t kSome = 16;
        const size_t slices = (list.size() + kSome - 1) / kSome;
        const uint64_t* const next = part_.code(at + n);
        const size_t words = size_t{std::min(block_, part_.slots - at - n)} * part_.words;
        const size_t share = (words / slices + 8) / 8 * 8;
        int found = 0;
        for (size_t s = 0; s < slices; ++s) {
            for (size_t w = s * share; w < std::min((s + 1) * share, words); w += 8)
                __builtin_prefetch(next + w, 0, 2);
            const size_t first = s * kSome, some = std::min(kSome, list.size() - first);
            found += state.kernel.compare(state.bound.data(), &list[first], static_cast<int>(some),
                                          &state.hits[found]);
        }
        for (int h = 0; h < found; ++h) take_hit(state, state.hits[h], at, n);
        flush(state, at);
    }

    void take_hit(Fold& state, const BlockHit& found, uint32_t at, uint32_t n) const {
        __builtin_prefetch(state.batch.collectors[found.query]);
        for (uint32_t lanes = found.lanes; lanes != 0; lanes &= lanes - 1) {
            const int lane = __builtin_ctz(lanes);
            for (uint64_t mask = found.mask[lane]; mask != 0; mask &= mask - 1) {
                const uint32_t row = state.kernel.code_of(lane, __builtin_ctzll(mask));
                if (row >= n) continue;
                part_.prefetch_count(at + row);
                state.near[state.n_near++] = {found.query, row};
                if (state.n_near == kNear) flush(state, at);
            }
        }
    }

    // What a hit touches is in no near cache: the collectors of a large batch, and how many ids a
    // slot has. So hits go by groups, each one's misses overlapping with the others'.
    void flush(Fold& state, uint32_t at) const {
        for (int i = 0; i < state.n_near; ++i)
            state.batch.collectors[state.near[i].query]->prefetch();
        for (int i = 0; i < state.n_near; ++i) {
            const auto [q, row] = state.near[i];
            const uint64_t* query = queries_[state.batch.first + q];
            hit(*state.batch.collectors[q], hamming(part_.code(at + row), query, part_.words),
                at + row);
            renew_bound(state, q);
        }
        state.n_near = 0;
    }

    // A collector that knows nothing would take the whole block. Bounds are tried from small to
    // large until k codes of the block are within: a fold is cheap, a hit is not. (Fewer do not do:
    // with codes of other parts, which are farther, they make a bound beyond the one tried.)
    void first_block(Fold& state, std::vector<uint32_t> list, uint32_t at, uint32_t n) const {
        const std::vector<int32_t> bound = state.bound;
        std::vector<uint32_t> trying;
        for (int trial = part_.words * 8; trial < part_.words * 32; trial += part_.words * 8) {
            trying.clear();
            for (uint32_t q : list) {
                if (state.batch.collectors[q]->full() || bound[q] <= trial) continue;
                trying.push_back(q);
                state.bound[q] = trial;
            }
            const int found =
                state.kernel.compare(state.bound.data(), trying.data(),
                                     static_cast<int>(trying.size()), state.hits.data());
            for (int h = 0; h < found; ++h) {
                const uint32_t q = state.hits[h].query;
                uint64_t within = 0;
                for (int lane = 0; lane < kernels_.lanes; ++lane)
                    within += static_cast<uint64_t>(__builtin_popcountll(state.hits[h].mask[lane]));
                // Padding of the last block may be among them.
                if (within < state.batch.collectors[q]->k() + (block_ - n)) continue;
                take_hit(state, state.hits[h], at, n);
                flush(state, at);
                list.erase(std::lower_bound(list.begin(), list.end(), q));
            }
        }
        state.bound = bound;
        take(state, list, at, n);
        for (size_t q = 0; q < state.batch.n; ++q) renew_bound(state, q);
    }

    const Part& part_;
    const std::vector<const uint64_t*>& queries_;
    const std::vector<Collector*>& collectors_;
    const Control& control_;
    const Kernels& kernels_;
    const ScanCosts& costs_;
    const uint32_t block_;
    const Clusters* clusters_;
    std::vector<int32_t> most_;
    Buffer<uint16_t> to_centre_;  // [centre][query]
    std::atomic<uint64_t> visited_{0};
};

}  // namespace

template <class Collector>
void scan(const Part& part, const std::vector<const uint64_t*>& queries,
          const std::vector<Collector*>& collectors, const Control& control) {
    if (queries.empty() || part.slots == 0) return;
    const std::vector<size_t> missed =
        Scan<Collector>(part, queries, collectors, control).run(Collector::kLearns);
    if (missed.empty()) return;
    std::vector<const uint64_t*> again;
    std::vector<Collector*> their_collectors;
    for (size_t q : missed) {
        collectors[q]->forget(part.number, [&](uint32_t slot) { return part.count(slot); });
        again.push_back(queries[q]);
        their_collectors.push_back(collectors[q]);
    }
    Scan<Collector>(part, again, their_collectors, control).run(false);
}

template <class Collector>
double expected_share(const Part& part, const uint64_t* query, const Collector& found) {
    const Clusters* clusters = part.clusters();
    if (clusters == nullptr) return 1;
    std::vector<uint16_t> distance(clusters->size());
    simd::active().distances(clusters->centres(), static_cast<int>(clusters->size()), part.words,
                             query, distance.data());
    const auto within = [&](int bound) {
        uint64_t codes = 0;
        for (uint32_t c = 0; c < clusters->size(); ++c) {
            const auto [begin, end] = clusters->range(c, distance[c] - bound, distance[c] + bound);
            codes += end - begin;
        }
        return static_cast<double>(codes) / part.slots;
    };
    const double last = within(found.bound());
    if (!Collector::kLearns) return last;
    // It begins with a bound of its own, and finds what lowers it on the way.
    const uint64_t k = static_cast<uint64_t>(static_cast<double>(found.k()) / part.share);
    const FirstCodes first(part, distance.data(), k);
    const double most = within(std::max(found.bound(), first.bound(part, query, k)));
    return (most + last) / 2;
}

template double expected_share(const Part&, const uint64_t*, const KnnCollector&);
template double expected_share(const Part&, const uint64_t*, const RangeCollector&);
template void scan(const Part&, const std::vector<const uint64_t*>&,
                   const std::vector<KnnCollector*>&, const Control&);
template void scan(const Part&, const std::vector<const uint64_t*>&,
                   const std::vector<RangeCollector*>&, const Control&);

}  // namespace dmih
