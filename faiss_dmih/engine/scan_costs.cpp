#include "scan_costs.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "buffer.hpp"
#include "hamming.hpp"
#include "simd/kernels.hpp"

namespace dmih {
namespace {

using simd::BlockHit;
using simd::FoldWord;
using simd::Kernels;

// The best of several turns, each long enough for the clock.
double seconds_of(const std::function<void()>& work) {
    using Seconds = std::chrono::duration<double>;
    double best = 1e300;
    for (int turn = 0; turn < 6; ++turn) {
        const auto start = std::chrono::steady_clock::now();
        Seconds taken{0};
        int times = 0;
        do {
            work();
            ++times;
            taken = std::chrono::steady_clock::now() - start;
        } while (taken < Seconds(10e-6));
        best = std::min(best, taken.count() / times);
    }
    return best;
}

ScanCosts measure(const Kernels& kernels, int words) {
    // A core takes up to half a millisecond to the clock and width it keeps under vector work.
    constexpr int kWarm = 16, kAdds = 20000;
    volatile uint64_t sink = 0;
    for (int i = 0; i < kWarm; ++i) sink = sink + kernels.full_adds(kAdds);
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
    // Near enough that few codes are within, far enough that no word of a long code tells.
    const std::vector<int32_t> bound(kQueries, words == 1 ? 8 : words * 64 / 3);
    std::vector<uint32_t> all(kQueries);
    std::iota(all.begin(), all.end(), 0u);
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
                         kernels.fold(planes.data(), words, folded.data(), bound.data(), all.data(),
                                      kQueries, hits.data());
                 });
    costs.columns = costs.match = 1e300;
    if (kernels.match != nullptr) {
        std::vector<const uint64_t*> rows;
        for (int q = 0; q < kQueries; ++q) rows.push_back(codes.data() + q * row_words);
        Buffer<uint64_t> columns(row_words * static_cast<size_t>(block));
        costs.columns = 1e9 / kBlocks * seconds_of([&] {
                            for (int b = 0; b < kBlocks; ++b)
                                kernels.make_columns(codes.data() + b * block * row_words, words,
                                                     columns.data());
                        });
        costs.match = 1e9 / kQueries * seconds_of([&] {
                          kernels.match(columns.data(), words, rows.data(), bound.data(),
                                        all.data(), kQueries, hits.data());
                      });
    }
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

KernelSpeeds kernel_speeds(int words) {
    const Kernels& kernels = simd::active();
    // In turns with the adders alone, so that both meet the same clock; the first ones also bring
    // the core to the clock it keeps under vector work.
    constexpr int kTurns = 40, kRounds = 20000;
    volatile uint64_t sink = 0;
    ScanCosts costs = measure(kernels, words);
    double adds = 1e300;
    for (int turn = 0; turn < kTurns; ++turn) {
        adds = std::min(adds, seconds_of([&] { sink = kernels.full_adds(kRounds); }));
        const ScanCosts again = measure(kernels, words);
        costs.fold = std::min(costs.fold, again.fold);
        costs.planes = std::min(costs.planes, again.planes);
    }
    adds *= 1e9 / kRounds / simd::kAddsPerRound;

    const size_t n = (size_t{32} << 20) / 8 / static_cast<size_t>(words);  // 32 MB of codes
    Buffer<uint64_t> codes(n * static_cast<size_t>(words));
    std::memset(codes.data(), 0x5A, codes.bytes());
    std::vector<uint64_t> query(static_cast<size_t>(words), 0);  // at distance d / 2 of all codes
    constexpr int kChunk = 1024;
    uint32_t index[kChunk];
    uint16_t distance[kChunk];
    const double row = 1e9 / static_cast<double>(n) * seconds_of([&] {
                           for (size_t i = 0; i + kChunk <= n; i += kChunk)
                               kernels.rows(codes.data() + i * words, kChunk, words, query.data(),
                                            0, index, distance);
                       });
    const double read = 1e9 / static_cast<double>(n) * seconds_of([&] {
                            uint64_t sum = 0;
                            for (size_t i = 0; i < codes.size(); ++i) sum += codes[i];
                            sink = sum;
                        });
    return {costs.fold,   adds * kernels.adds_per_word * words,
            costs.planes, costs.columns,
            costs.match,  row,
            read,         costs.block};
}

double ScanCosts::per_code(size_t queries, int threads) const {
    const size_t batch = std::max<size_t>(queries, 1);
    const double by_block = of_block(batch) / static_cast<double>(batch) / block;
    // A lone query is spread over all threads; in a batch each thread has its own queries.
    return std::min(row, by_block) / (queries < static_cast<size_t>(threads) ? threads : 1);
}

}  // namespace dmih
