#include "slices.hpp"

#include <algorithm>
#include <cmath>

namespace dmih {
namespace {

constexpr int kRow = kGrid + 1;

struct Ranks {
    std::vector<uint16_t> rank, least;  // [distance][middle]

    Ranks() : rank(size_t{kRow} * kRow), least(rank) {
        for (int h = kRow - 1; h >= 0; --h) {
            for (int r = 0; r < kRow; ++r) {
                const int at = h * kRow + r;
                least[at] = rank[at] = of(h, r);
                if (r > 0) least[at] = std::min(least[at], least[at - 1]);
                if (h < kRow - 1) least[at] = std::min(least[at], least[at + kRow]);
            }
        }
    }

    static uint16_t of(int h, int r) {
        constexpr double kAll = double{kGrid} * kGrid;
        constexpr double kNear = kAll / 8;
        // Where there is no deviation the mean decides, but is not divided by nothing.
        constexpr double kLeast = kAll / 128;
        // A rank is a part of a deviation, but for the square root of d.
        constexpr double kPart = 1.0 / 200, kLowest = -0.25;
        const double mean = kGrid * (h + r) - 2 * h * r;
        const double product = double{1} * h * r * (kGrid - h) * (kGrid - r);
        const double z = (mean - kNear) / (2 * std::sqrt(product) + kLeast);
        return static_cast<uint16_t>(std::clamp((z - kLowest) / kPart, 0.0, double{kRanks - 1}));
    }
};

const Ranks& ranks() {
    static const Ranks instance;
    return instance;
}

}  // namespace

const uint16_t* ranks_at(int distance) {
    return ranks().rank.data() + distance * kRow;
}

int least_rank(int distance, int widest) {
    return ranks().least[static_cast<size_t>(distance * kRow + widest)];
}

void Slices::add(uint32_t begin, uint32_t end) {
    const uint32_t slices = (end - begin + kSliceCodes - 1) / kSliceCodes;
    const auto at = [&](uint32_t i) {
        return begin + static_cast<uint32_t>(uint64_t{end - begin} * i / slices);
    };
    if (first.empty()) first.push_back(0);
    for (uint32_t p = 0; p < slices; ++p)
        all.push_back({at(p), at(p + 1), static_cast<uint32_t>(first.size()) - 1, 0, 0, 0});
    first.push_back(static_cast<uint32_t>(all.size()));
}

}  // namespace dmih
