#include "scan.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>

#include "simd/kernels.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

using simd::BlockHit;
using simd::FoldWord;
using simd::Kernels;

constexpr uint32_t kRowChunk = 1024;  // rows per call: the bound falls between calls
constexpr size_t kFoldQueries = 512;  // queries that share a block's planes in one task
constexpr size_t kFoldEnough = 128;   // fewer do not pay for planes of their own

// Codes [begin, end) of a part for some of the queries.
template <class Collector>
struct Task {
    const Part& part;
    const Filter* filter;
    const Control& control;
    uint32_t begin, end;
    // Slots are visited in the order of their ids and stand for one id each: of codes tied with the
    // k-th, later ones lose.
    bool ascending;

    int bound_of(const Collector& collector) const {
        return ascending ? collector.bound_for_later_ids() : collector.bound();
    }

    void hit(Collector& collector, int distance, uint32_t slot) const {
        if (distance > collector.bound()) return;
        const uint64_t ids = part.count(slot, filter);
        if (ids > 0) collector.add(distance, part.number, slot, ids);
    }

    void rows(const Kernels& kernels, const uint64_t* query, Collector& collector) const {
        uint32_t index[kRowChunk];
        uint16_t distance[kRowChunk];
        for (uint32_t at = begin; at < end;) {
            const uint32_t n = std::min(kRowChunk, end - at);
            const int found = kernels.rows(part.code(at), static_cast<int>(n), part.words, query,
                                           bound_of(collector), index, distance);
            for (int i = 0; i < found; ++i) hit(collector, distance[i], at + index[i]);
            at += n;
            control.poll();
        }
        stats().scanned.fetch_add(end - begin, std::memory_order_relaxed);
    }

    // `begin` is a multiple of the block.
    void fold(const Kernels& kernels, const uint64_t* const* queries, size_t nq,
              Collector* const* collectors) const {
        const size_t words = static_cast<size_t>(part.words);
        const uint32_t block = 64u * static_cast<uint32_t>(kernels.lanes);
        Buffer<FoldWord> folded(nq * words);
        std::vector<int32_t> bound(nq);
        std::vector<BlockHit> hits(nq);
        Buffer<uint64_t> planes(words * simd::kPlanesPerWord * static_cast<size_t>(kernels.lanes));
        Buffer<uint64_t> last;  // the rows of a block that the codes do not fill
        for (size_t q = 0; q < nq; ++q) {
            kernels.make_query(queries[q], part.words, folded.data() + q * words);
            bound[q] = bound_of(*collectors[q]);
        }
        for (uint32_t at = begin; at < end; at += std::min(block, end - at)) {
            const uint64_t* codes = part.code(at);
            if (end - at < block) {
                last = Buffer<uint64_t>(block * words);
                std::memset(last.data(), 0, last.bytes());
                std::memcpy(last.data(), codes, (end - at) * words * 8);
                codes = last.data();
            }
            kernels.make_planes(codes, part.words, planes.data());
            const int found = kernels.fold(planes.data(), part.words, folded.data(), bound.data(),
                                           static_cast<int>(nq), hits.data());
            for (int h = 0; h < found; ++h)
                take(kernels, hits[h], at, codes, queries, collectors, bound);
            control.poll();
        }
        stats().scanned.fetch_add(nq * (end - begin), std::memory_order_relaxed);
    }

    void take(const Kernels& kernels, const BlockHit& found, uint32_t at, const uint64_t* codes,
              const uint64_t* const* queries, Collector* const* collectors,
              std::vector<int32_t>& bound) const {
        Collector& collector = *collectors[found.query];
        const uint64_t* query = queries[found.query];
        const uint32_t n = end - at;
        for (int lane = 0; lane < kernels.lanes; ++lane) {
            for (uint64_t mask = found.mask[lane]; mask != 0; mask &= mask - 1) {
                const uint32_t row =
                    static_cast<uint32_t>(__builtin_ctzll(mask) * kernels.lanes + lane);
                if (row >= n) continue;
                hit(collector, hamming(codes + size_t(row) * part.words, query, part.words),
                    at + row);
            }
        }
        bound[found.query] = bound_of(collector);
    }
};

double seconds_of(const std::function<void()>& work) {
    double best = 1e300;
    for (int repeat = 0; repeat < 3; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        best = std::min(best, taken.count());
    }
    return best;
}

ScanCosts measure(const Kernels& kernels, int words) {
    constexpr int kBlocks = 4, kQueries = 64;
    const int block = 64 * kernels.lanes, n = kBlocks * block;
    const size_t row_words = static_cast<size_t>(words);
    Buffer<uint64_t> codes(static_cast<size_t>(n) * row_words);
    uint64_t x = 0x9E3779B97F4A7C15ull;
    for (size_t i = 0; i < codes.size(); ++i) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        codes[i] = x;
    }
    Buffer<FoldWord> folded(kQueries * row_words);
    for (int q = 0; q < kQueries; ++q)
        kernels.make_query(codes.data() + q * row_words, words, folded.data() + q * row_words);
    const std::vector<int32_t> bound(kQueries, words * 64 / 8);
    std::vector<BlockHit> hits(kQueries);
    Buffer<uint64_t> planes(row_words * simd::kPlanesPerWord * static_cast<size_t>(kernels.lanes));
    std::vector<uint32_t> index(static_cast<size_t>(n));
    std::vector<uint16_t> distance(static_cast<size_t>(n));
    ScanCosts costs;
    costs.block = block;
    costs.row = 1e9 / n * seconds_of([&] {
                    kernels.rows(codes.data(), n, words, codes.data(), bound[0], index.data(),
                                 distance.data());
                });
    costs.planes =
        1e9 / kBlocks * seconds_of([&] {
            for (int b = 0; b < kBlocks; ++b)
                kernels.make_planes(codes.data() + b * block * row_words, words, planes.data());
        });
    costs.fold = 1e9 / kBlocks / kQueries * seconds_of([&] {
                     for (int b = 0; b < kBlocks; ++b)
                         kernels.fold(planes.data(), words, folded.data(), bound.data(), kQueries,
                                      hits.data());
                 });
    return costs;
}

}  // namespace

const ScanCosts& scan_costs(int words) {
    // No lock: a process forked while another thread measures must not wait for it. Two threads
    // that measure at once both get what the first one publishes.
    static std::atomic<const ScanCosts*> known[simd::kMaxLevels][kMaxWords + 1];
    const Kernels& kernels = simd::active();
    std::atomic<const ScanCosts*>& entry = known[kernels.level][words];
    const ScanCosts* costs = entry.load(std::memory_order_acquire);
    if (costs != nullptr) return *costs;
    auto measured = std::make_unique<const ScanCosts>(measure(kernels, words));
    if (entry.compare_exchange_strong(costs, measured.get(), std::memory_order_acq_rel))
        costs = measured.release();
    return *costs;
}

double ScanCosts::per_code(size_t queries, int threads) const {
    const double batch = static_cast<double>(std::max<size_t>(queries, 1));
    const double folding = (planes / batch + fold) / block;
    // A lone query is spread over all threads; in a batch each thread has its own queries.
    return std::min(row, folding) / (queries < static_cast<size_t>(threads) ? threads : 1);
}

template <class Collector>
void scan(const Part& part, const std::vector<const uint64_t*>& queries, const Filter* filter,
          const std::vector<Collector*>& collectors, const Control& control) {
    const size_t nq = queries.size();
    const uint32_t n = part.slots;
    if (nq == 0 || n == 0) return;
    const Kernels& kernels = simd::active();
    const ScanCosts& costs = scan_costs(part.words);
    const bool folding = costs.planes + static_cast<double>(nq) * costs.fold <
                         static_cast<double>(nq) * costs.row * costs.block;
    const size_t threads = static_cast<size_t>(std::max(control.threads(), 1));
    const bool ascending = !part.has_lists();

    // Threads share the queries if there are enough of them, otherwise the codes.
    const size_t enough = folding ? kFoldEnough : 1;
    if (threads == 1 || nq >= enough * threads || n < 4096) {
        size_t group = 1;
        if (folding) {
            const size_t rounds = (nq + kFoldQueries * threads - 1) / (kFoldQueries * threads);
            group = std::max<size_t>((nq + rounds * threads - 1) / (rounds * threads), 1);
        }
        const Task<Collector> task{part, filter, control, 0, n, ascending};
        parallel_for(control, (nq + group - 1) / group, [&](size_t g) {
            const size_t first = g * group, count = std::min(group, nq - first);
            if (folding)
                task.fold(kernels, &queries[first], count, &collectors[first]);
            else
                task.rows(kernels, queries[first], *collectors[first]);
        });
        return;
    }

    const uint32_t block = 64u * static_cast<uint32_t>(kernels.lanes);
    const uint32_t range = static_cast<uint32_t>((uint64_t{n} / (2 * threads) / block + 1) * block);
    std::mutex merging;
    parallel_for(control, (uint64_t{n} + range - 1) / range, [&](size_t r) {
        std::vector<Collector> own;
        std::vector<Collector*> pointers;
        {
            std::lock_guard<std::mutex> lock(merging);
            for (const Collector* collector : collectors) own.push_back(collector->empty_copy());
        }
        for (Collector& collector : own) pointers.push_back(&collector);
        const uint32_t begin = static_cast<uint32_t>(r) * range;
        const uint32_t end = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{begin} + range, n));
        const Task<Collector> task{part, filter, control, begin, end, ascending};
        if (folding)
            task.fold(kernels, queries.data(), nq, pointers.data());
        else
            for (size_t q = 0; q < nq; ++q) task.rows(kernels, queries[q], own[q]);
        std::lock_guard<std::mutex> lock(merging);
        for (size_t q = 0; q < nq; ++q)
            for (const Found& f : own[q].found())
                collectors[q]->add(f.distance(), f.part(), f.slot(), part.count(f.slot(), filter));
    });
}

template void scan(const Part&, const std::vector<const uint64_t*>&, const Filter*,
                   const std::vector<KnnCollector*>&, const Control&);
template void scan(const Part&, const std::vector<const uint64_t*>&, const Filter*,
                   const std::vector<RangeCollector*>&, const Control&);

}  // namespace dmih
