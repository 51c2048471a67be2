// How far the k nearest codes of a part are at the most, or about: told before they are known, so
// that few others are met on the way.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "buffer.hpp"
#include "part.hpp"
#include "simd/kernels.hpp"

namespace dmih {

// The codes that a scan takes its first bound from: of the nearest cluster that has k those that
// are about as far from its centre as the query is. Near ones are among them, and all of a large
// cluster would cost more than it tells. (Without a bound, a query that is far from everything
// would meet a cluster's codes from its centre outwards, each nearer to it than those before.)
struct FirstCodes {
    static constexpr uint32_t kEnough = 1024, kEnoughPerK = 16;
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
        const uint64_t enough = kEnough + kEnoughPerK * k;
        for (int width = 1; end - begin < enough && width < 128 * part.words; width *= 2)
            std::tie(begin, end) = clusters.range(c, h - width, h + width);
    }

    // Within it are k of them; a slot is one id at least.
    int bound(const Part& part, const uint64_t* query, uint64_t k) const {
        const uint32_t n = end - begin;
        if (n < k) return 64 * part.words;
        std::vector<uint16_t> distance(n);
        const simd::Kernels& kernels = simd::active();
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
    Guesser(const Part& part, uint64_t k, size_t queries) : part_(part) {
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
        if (queries < kWorthGathering) return;
        sample_ = Buffer<uint64_t>(size_t{runs_} * kRun * part.words);
        for (uint32_t r = 0; r < runs_; ++r)
            std::memcpy(&sample_[size_t{r} * kRun * part.words], run(r), kRun * part.words * 8);
    }

    bool guesses() const { return runs_ > 0; }

    int operator()(const uint64_t* query) const {
        const simd::Kernels& kernels = simd::active();
        std::vector<uint16_t> distance(size_t{runs_} * kRun);
        const int n = static_cast<int>(distance.size());
        if (sample_.empty())
            for (uint32_t r = 0; r < runs_; ++r)
                kernels.distances(run(r), kRun, part_.words, query, &distance[size_t{r} * kRun]);
        else
            kernels.distances(sample_.data(), n, part_.words, query, distance.data());
        return kernels.kth_smallest(distance.data(), n, rank_);
    }

private:
    static constexpr uint32_t kRun = 16;
    static constexpr size_t kWorthGathering = 4;  // queries

    const uint64_t* run(uint32_t r) const {
        return part_.code(static_cast<uint32_t>(uint64_t{r} * (part_.slots - kRun) / runs_));
    }

    const Part& part_;
    Buffer<uint64_t> sample_;  // run after run, where it is worth having them so
    uint32_t runs_ = 0;
    int rank_ = 0;
};

}  // namespace dmih
