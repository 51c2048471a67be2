#include "front.hpp"

#include <algorithm>
#include <cmath>

namespace dmih {
namespace {

// What a table holds near the data.
struct Density {
    // How buckets at radius 0 and 1 around stored codes compare with the mean bucket.
    double skew[2] = {1, 1};
    // Of the entries: whose codes are compared, their signatures being near.
    double near = 1;
};

// Expected items of a ring.
double ring_items(const Table& table, uint32_t slots, int radius, const Density& density) {
    const double buckets = binomial(table.substring.bits, radius);
    const double met =
        buckets * slots / std::exp2(table.substring.bits) * density.skew[std::min(radius, 1)];
    return buckets + std::min(met, static_cast<double>(slots)) *
                         (kEntryItems + kComparedItems * density.near);
}

void push(Front& front, uint32_t table, int radius, double items) {
    front.steps.push_back({table, radius});
    front.items.push_back(front.items.back() + items);
}

Density measure(const Table& table, const uint64_t* codes, uint32_t slots, int words, int bound) {
    const uint32_t sample = std::min<uint32_t>(slots, 64);
    double met[2] = {0, 0}, near = 0;
    for (uint32_t i = 0; i < sample; ++i) {
        const uint64_t* code = codes + uint64_t{i} * slots / sample * words;
        const uint32_t key = table.substring.of(code), signature = table.signature.of(code);
        const auto [own, own_end] = table.bucket(key);
        met[0] += own_end - own - 1;  // the code itself is no news
        for (int b = 0; b < table.substring.bits; ++b) {
            const uint32_t at = key ^ (1u << b);
            const auto [begin, end] = table.bucket(at);
            met[1] += end - begin;
            if (table.signatures.empty()) continue;
            for (uint32_t p = begin; p < end; ++p)
                near += 1 + __builtin_popcount(table.signatures[p] ^ signature) <= bound;
        }
    }
    const double mean = slots / std::exp2(table.substring.bits) * std::max<uint32_t>(sample, 1);
    Density out;
    out.skew[0] = std::max(met[0] / mean, 1.0);
    out.skew[1] = std::max(met[1] / (mean * table.substring.bits), 1.0);
    if (!table.signatures.empty()) out.near = near / std::max(met[1], 1.0);
    return out;
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
    std::vector<Density> density;
    for (const Table& table : tables)
        density.push_back(measure(table, codes, slots, words, usual_bound(tables.size())));
    auto cost = [&](uint32_t j, int radius) {
        return ring_items(tables[j], slots, radius, density[j]);
    };
    std::vector<int> next(tables.size(), 0);  // radius of each table's next ring
    std::vector<double> price;
    for (uint32_t j = 0; j < tables.size(); ++j) price.push_back(cost(j, 0));
    for (;;) {
        const auto cheapest = std::min_element(price.begin(), price.end());
        const uint32_t j = static_cast<uint32_t>(cheapest - price.begin());
        push(front, j, next[j], price[j]);
        if (next[j] == 0 && front.own_buckets + 1 == front.steps.size()) ++front.own_buckets;
        if (next[j] == tables[j].substring.bits) return front;
        price[j] = cost(j, ++next[j]);
    }
}

// Expected items until every code at a distance < `steps` of a uniform query has been seen.
static double uniform_items(const std::vector<int>& cuts, uint64_t n, int steps) {
    const double entry = kEntryItems + (signatures_help(cuts.size()) ? 0 : kComparedItems);
    const auto cost = [n, entry](int bits, int radius) {
        return binomial(bits, radius) * (1 + entry * static_cast<double>(n) / std::exp2(bits));
    };
    std::vector<int> next(cuts.size(), 0);
    double items = 0;
    for (int s = 0; s < steps; ++s) {
        size_t cheapest = 0;
        for (size_t j = 1; j < cuts.size(); ++j)
            if (cost(cuts[j], next[j]) < cost(cuts[cheapest], next[cheapest])) cheapest = j;
        items += cost(cuts[cheapest], next[cheapest]++);
    }
    return items;
}

std::vector<int> cheapest_cuts(int d, uint64_t n) {
    // As near as near neighbours are: a sixteenth of the bits.
    const int steps = d / 16 + 1;
    const std::vector<int> paper = default_cuts(d, n);
    const int m = static_cast<int>(paper.size());
    if (m == d) return paper;
    const std::vector<int> more = even_cuts(d, m + 1);
    return uniform_items(more, n, steps) < uniform_items(paper, n, steps) ? more : paper;
}

Front round_robin_front(const std::vector<Table>& tables, uint32_t slots) {
    Front front;
    front.items.push_back(0);
    for (int radius = 0; !tables.empty(); ++radius) {
        for (uint32_t j = 0; j < tables.size(); ++j) {
            push(front, j, radius, ring_items(tables[j], slots, radius, Density{}));
            if (radius == tables[j].substring.bits) return front;
        }
    }
    return front;
}

}  // namespace dmih
