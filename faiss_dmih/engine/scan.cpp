#include "scan.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>

#include "blocks.hpp"
#include "first_bound.hpp"
#include "scan_costs.hpp"
#include "simd/kernels.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

using simd::BlockHit;
using simd::Kernels;

constexpr uint32_t kRowChunk = 1024;   // rows per call: the bound falls between calls
constexpr size_t kFoldQueries = 1024;  // queries that share a block's planes in one task
constexpr size_t kFoldEnough = 128;    // fewer do not pay for planes of their own
constexpr uint32_t kFewCodes = 4096;   // not worth sharing out among threads

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
        const size_t nq = queries_.size();
        const size_t threads = static_cast<size_t>(std::max(control_.threads(), 1));
        const bool guessed = guessing && guess();
        if (clusters_ != nullptr) approach(threads, Collector::kLearns && !guessed);
        if (shares_queries(threads))
            share_queries(costs_.blocks_pay((nq + threads - 1) / threads), threads);
        else if (costs_.blocks_pay(nq))
            share_blocks(threads);
        else
            for (size_t q = 0; q < nq; ++q) share_rows(q, threads);
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

    // Threads share the queries or the codes. Each makes planes or columns of all blocks for the
    // queries it has; of pieces of the codes each finds up to k codes, which have to be put
    // together.
    bool shares_queries(size_t threads) const {
        constexpr double kPutting = 20;  // nanoseconds, a code
        const size_t nq = queries_.size(), each = (nq + threads - 1) / threads;
        if (threads == 1 || part_.slots < kFewCodes || nq >= kFoldEnough * threads) return true;
        if (!costs_.blocks_pay(nq)) return nq >= threads;
        const double blocks = share() * part_.slots / block_;
        const double own = std::min(costs_.of_block(each), static_cast<double>(each) * costs_.row *
                                                               static_cast<double>(block_));
        const double found =
            static_cast<double>(nq * std::min<uint64_t>(collectors_.front()->k(), part_.slots));
        return blocks * own <=
               (blocks * costs_.of_block(nq) + found * kPutting) / static_cast<double>(threads);
    }

    // Of the codes, that some of the queries have to be compared with.
    double share() const {
        if (clusters_ == nullptr) return 1;
        constexpr size_t kSome = 4;
        const size_t nq = queries_.size(), some = std::min(nq, kSome);
        uint64_t codes = 0;
        for (size_t i = 0; i < some; ++i) codes += near_clusters(i * nq / some).codes;
        return static_cast<double>(codes) / static_cast<double>(some * part_.slots);
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
        bool first = true;
    };

    Fold fold_of(const Batch& batch) const {
        return {batch,
                BlockKernel(&queries_[batch.first], batch.n, part_.words),
                std::vector<int32_t>(batch.n),
                std::vector<uint16_t>(batch.n),
                std::vector<BlockHit>(batch.n),
                {}};
    }

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
            if (by_block) {
                Fold state = fold_of(batch);
                blocks(state, 0, part_.slots);
            } else {
                for (size_t q = first; q < first + batch.n; ++q) rows(q, *collectors_[q]);
            }
        });
    }

    // Pieces of the codes for queries [first, first + n), by whichever thread is free. Each has
    // collectors of its own, but what one knows of a bound the others come to know: `agree`.
    // make_worker(batch) is asked once by each; what it returns is called with piece after piece.
    template <class MakeWorker>
    void share_pieces(size_t first, size_t n, size_t threads, uint32_t pieces,
                      const MakeWorker& make_worker) {
        agreed_ = std::vector<std::atomic<int>>(Collector::kLearns ? queries_.size() : 0);
        for (size_t q = 0; q < agreed_.size(); ++q) agreed_[q] = collectors_[q]->bound();
        std::vector<std::vector<Collector>> found(threads);
        std::atomic<uint32_t> next{0};
        parallel_for(control_, threads, [&](size_t t) {
            std::vector<Collector*> pointers;
            found[t].reserve(n);
            for (size_t i = 0; i < n; ++i) {
                found[t].push_back(collectors_[first + i]->empty_copy());
                pointers.push_back(&found[t].back());
            }
            auto work = make_worker(Batch{first, n, pointers.data()});
            for (uint32_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
                work(i);
                control_.poll();
            }
        });
        agreed_.clear();
        constexpr uint64_t kEnough = 4096;  // codes, for a thread to be woken
        const uint64_t each = std::max<uint64_t>(collectors_[first]->k(), 1);
        const size_t group = static_cast<size_t>(std::max<uint64_t>(kEnough / each, 1));
        parallel_for(control_, (n + group - 1) / group, [&](size_t g) {
            for (size_t i = g * group; i < std::min(n, (g + 1) * group); ++i)
                for (std::vector<Collector>& own : found) {
                    if (own.empty()) continue;
                    for (const Found& f : own[i].found())
                        collectors_[first + i]->add(f.distance(), f.part(), f.slot(),
                                                    part_.count(f.slot()));
                }
        });
    }

    void share_blocks(size_t threads) {
        const uint32_t piece = (part_.slots / block_ / pieces_for(threads) + 1) * block_;
        share_pieces(0, queries_.size(), threads, (part_.slots - 1) / piece + 1,
                     [&](const Batch& batch) {
                         return [this, piece, state = fold_of(batch)](uint32_t i) mutable {
                             blocks(state, i * piece, end_of(i, piece));
                         };
                     });
    }

    void share_rows(size_t q, size_t threads) {
        if (clusters_ == nullptr) {
            const uint32_t piece = part_.slots / pieces_for(threads) + 1;
            share_pieces(q, 1, threads, (part_.slots - 1) / piece + 1, [&](const Batch& batch) {
                return [this, q, piece, own = batch.collectors[0]](uint32_t i) {
                    scan_rows(q, *own, i * piece, end_of(i, piece));
                };
            });
            return;
        }
        constexpr double kWorthWaking = 20e3;  // nanoseconds of work, for a thread to be woken
        const NearClusters near = near_clusters(q);
        if (static_cast<double>(near.codes) * costs_.row < kWorthWaking) {
            for (const uint32_t c : near.order) scan_cluster(q, *collectors_[q], c);
            return;
        }
        const auto clusters = static_cast<uint32_t>(near.order.size());
        share_pieces(q, 1, threads, clusters, [&](const Batch& batch) {
            return [this, q, &near, own = batch.collectors[0]](uint32_t i) {
                scan_cluster(q, *own, near.order[i]);
            };
        });
    }

    static uint32_t pieces_for(size_t threads) {
        constexpr uint32_t kPerThread = 8;
        return kPerThread * static_cast<uint32_t>(threads);
    }

    uint32_t end_of(uint32_t i, uint32_t piece) const {
        return static_cast<uint32_t>(std::min<uint64_t>(part_.slots, (i + uint64_t{1}) * piece));
    }

    // The distances to all centres, and first bounds from codes of the nearest cluster. These are
    // met again with the others: only the bound is kept.
    void approach(size_t threads, bool bounds) {
        const size_t nq = queries_.size();
        const size_t count = clusters_->size();
        to_centre_ = Buffer<uint16_t>(nq * count);
        constexpr size_t kLine = 32;  // as many distances fill a cache line of to_centre_
        const size_t group = std::min(kLine, (nq + threads - 1) / threads);
        parallel_for(control_, (nq + group - 1) / group, [&](size_t g) {
            const size_t first = g * group, n = std::min(group, nq - first);
            std::vector<uint16_t> distance(n * count);
            for (size_t i = 0; i < n; ++i) {
                uint16_t* const own = &distance[i * count];
                kernels_.distances(clusters_->centres(), static_cast<int>(count), part_.words,
                                   queries_[first + i], own);
                if (bounds) first_bound(first + i, own);
            }
            for (size_t c = 0; c < count; ++c)
                for (size_t i = 0; i < n; ++i)
                    to_centre_[c * nq + first + i] = distance[i * count + c];
        });
    }

    // Codes farther than most_[q] are left out. False: nothing was guessed.
    bool guess() {
        const Guesser guesser(part_, collectors_.front()->k(), queries_.size());
        if (!guesser.guesses()) return false;
        parallel_for(control_, queries_.size(), [&](size_t q) { most_[q] = guesser(queries_[q]); });
        return true;
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

    // Between those who share a query's codes: what each has found is going to be added to all.
    void agree(size_t q, Collector& collector) {
        if (agreed_.empty()) return;
        constexpr auto kRelaxed = std::memory_order_relaxed;
        std::atomic<int>& least = agreed_[q];
        int known = least.load(kRelaxed);
        while (collector.bound() < known &&
               !least.compare_exchange_weak(known, collector.bound(), kRelaxed)) {
        }
        collector.lower_bound_to(known);
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
            agree(q, collector);
            const int found = kernels_.rows(part_.code(at), static_cast<int>(n), part_.words,
                                            queries_[q], bound_of(q, collector), index, distance);
            for (int i = 0; i < found; ++i) hit(collector, distance[i], at + index[i]);
            control_.poll();
        }
        if (begin < end) visited_.fetch_add(end - begin, std::memory_order_relaxed);
    }

    // Nearest clusters first, so that the bound falls early.
    void rows(size_t q, Collector& collector) {
        if (clusters_ == nullptr)
            scan_rows(q, collector, 0, part_.slots);
        else
            for (const uint32_t c : near_clusters(q).order) scan_cluster(q, collector, c);
    }

    // Those with codes that may be within the bound, nearest first, and how many codes that are.
    struct NearClusters {
        std::vector<uint32_t> order;
        uint64_t codes = 0;
    };

    NearClusters near_clusters(size_t q) const {
        const uint32_t count = clusters_->size();
        const int bound = std::min(collectors_[q]->bound(), most_[q]);
        NearClusters near;
        std::vector<uint64_t> keys;  // distance, cluster
        for (uint32_t c = 0; c < count; ++c) {
            const int h = to_centre_[c * queries_.size() + q];
            const auto [begin, end] = clusters_->range(c, h - bound, h + bound);
            if (begin == end) continue;
            near.codes += end - begin;
            keys.push_back(static_cast<uint64_t>(h) << 32 | c);
        }
        std::sort(keys.begin(), keys.end());
        for (const uint64_t key : keys) near.order.push_back(static_cast<uint32_t>(key));
        return near;
    }

    void scan_cluster(size_t q, Collector& collector, uint32_t c) {
        const int h = to_centre_[c * queries_.size() + q];
        const int bound = std::min(collector.bound(), most_[q]);
        const auto [begin, end] = clusters_->range(c, h - bound, h + bound);
        scan_rows(q, collector, begin, end);
    }

    // Block by block, each for the queries that need it. `begin` is a multiple of the block.
    void blocks(Fold& state, uint32_t begin, uint32_t end) {
        const Batch& batch = state.batch;
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
            if (state.first && clusters_ == nullptr && part_.filter == nullptr)
                first_block(state, list, at, n);
            else
                take(state, list, at, n);
            state.first = false;
            visited_.fetch_add(uint64_t{n} * list.size(), std::memory_order_relaxed);
            control_.poll();
        }
    }

    void renew_bound(Fold& state, size_t q) {
        agree(state.batch.first + q, *state.batch.collectors[q]);
        state.bound[q] = bound_of(state.batch.first + q, *state.batch.collectors[q]);
        state.bound16[q] = static_cast<uint16_t>(std::max(state.bound[q], 0));
    }

    void take(Fold& state, const std::vector<uint32_t>& list, uint32_t at, uint32_t n) {
        if (list.empty()) return;
        // Meanwhile the codes of the next block come nearer: nobody else fetches them, and they
        // would be waited for. Some lines for some queries, no more than can be on their way at
        // once.
        constexpr size_t kSome = 4;
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

    void take_hit(Fold& state, const BlockHit& found, uint32_t at, uint32_t n) {
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
    void flush(Fold& state, uint32_t at) {
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
    void first_block(Fold& state, std::vector<uint32_t> list, uint32_t at, uint32_t n) {
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
    Buffer<uint16_t> to_centre_;            // [centre][query]
    std::vector<std::atomic<int>> agreed_;  // bounds; empty: nobody shares
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
