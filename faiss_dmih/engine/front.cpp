#include "front.hpp"

#include <algorithm>
#include <cmath>

namespace dmih {
namespace {

// Expected items of ring `radius` of a table whose buckets near the data are `skew` times fuller
// than the mean bucket.
double ring_items(const Table& table, uint32_t slots, int radius, double skew) {
    const double buckets = binomial(table.substring.bits, radius);
    const double met = buckets * slots * skew / std::exp2(table.substring.bits);
    return buckets + std::min(met, static_cast<double>(slots));
}

void push(Front& front, uint32_t table, int radius, double items) {
    front.steps.push_back({table, radius});
    front.items.push_back(front.items.back() + items);
}

// How the buckets at radius 0 and 1 around stored codes compare with the mean bucket.
struct Skew {
    double at[2];
};

Skew measure_skew(const Table& table, const uint64_t* codes, uint32_t slots, int words) {
    const uint32_t sample = std::min<uint32_t>(slots, 64);
    double met[2] = {0, 0};
    for (uint32_t i = 0; i < sample; ++i) {
        const uint64_t slot = uint64_t{i} * slots / sample;
        const uint32_t key = table.substring.of(codes + slot * words);
        auto bucket = [&](uint32_t at) { return table.offsets[at + 1] - table.offsets[at]; };
        met[0] += bucket(key) - 1;  // the code itself is no news
        for (int b = 0; b < table.substring.bits; ++b) met[1] += bucket(key ^ (1u << b));
    }
    const double mean = slots / std::exp2(table.substring.bits) * std::max<uint32_t>(sample, 1);
    return {{std::max(met[0] / mean, 1.0), std::max(met[1] / (mean * table.substring.bits), 1.0)}};
}

}  // namespace

double binomial(int n, int k) {
    double c = 1;
    for (int i = 0; i < k; ++i) c = c * (n - i) / (i + 1);
    return c;
}

Front greedy_front(const std::vector<Table>& tables, const uint64_t* codes, uint32_t slots,
                   int words) {
    Front front;
    front.items.push_back(0);
    if (tables.empty()) return front;
    std::vector<Skew> skew;
    for (const Table& table : tables) skew.push_back(measure_skew(table, codes, slots, words));
    auto cost = [&](uint32_t j, int radius) {
        return ring_items(tables[j], slots, radius, skew[j].at[std::min(radius, 1)]);
    };
    std::vector<int> next(tables.size(), 0);  // radius of each table's next ring
    std::vector<double> price;
    for (uint32_t j = 0; j < tables.size(); ++j) price.push_back(cost(j, 0));
    for (;;) {
        const auto cheapest = std::min_element(price.begin(), price.end());
        const uint32_t j = static_cast<uint32_t>(cheapest - price.begin());
        push(front, j, next[j], price[j]);
        if (next[j] == tables[j].substring.bits) return front;
        price[j] = cost(j, ++next[j]);
    }
}

Front round_robin_front(const std::vector<Table>& tables, uint32_t slots) {
    Front front;
    front.items.push_back(0);
    for (int radius = 0; !tables.empty(); ++radius) {
        for (uint32_t j = 0; j < tables.size(); ++j) {
            push(front, j, radius, ring_items(tables[j], slots, radius, 1.0));
            if (radius == tables[j].substring.bits) return front;
        }
    }
    return front;
}

}  // namespace dmih
