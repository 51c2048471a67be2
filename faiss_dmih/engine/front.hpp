// In which order the rings of the tables are probed, and what that is expected to cost.
//
// Let rho_j be the radius to which table j has been probed (-1: not at all). A code that no table
// has shown differs from the query by more than rho_j in every substring j, hence by at least
// sum(rho_j + 1) in all. So after s steps, each of which raises one rho_j by one:
//
//     every code at a distance < s has been seen.
//
// Any order of steps is right; a good one takes the cheapest ring next.
#pragma once

#include <cstdint>
#include <vector>

#include "tables.hpp"

namespace dmih {

// What probing costs, in items: a bucket looked up (two or three cache misses) is one; then each of
// its entries, a signature in a row; then each code compared, a miss of its own.
// Measured: docs/algorithm.md.
constexpr double kEntryItems = 0.1;
constexpr double kComparedItems = 1;

// Where a search that is worth probing ends, with so many tables: each probed at radius 0, some at
// radius 1.
constexpr int usual_bound(size_t tables) {
    return static_cast<int>(tables + tables / 2);
}

// Signatures of random codes differ in half their bits: no help to searches that end farther.
constexpr bool signatures_help(size_t tables) {
    return usual_bound(tables) < kSignatureBits / 2;
}

struct Step {
    uint32_t table;
    int radius;
};

struct Front {
    std::vector<Step> steps;  // up to the one after which everything has been seen
    // Expected items before step s; steps.size() + 1 entries.
    std::vector<double> items;
    // So many steps at the beginning are single buckets, which a query may take in another order.
    size_t own_buckets = 0;
};

double binomial(int n, int k);

// Substring lengths: the papers' number of tables or one more, whichever finds near neighbours of
// uniform codes at less cost. (Entries with signatures are cheap, so it pays to have more of them
// and fewer buckets.)
std::vector<int> cheapest_cuts(int d, uint64_t n);

// Always the cheapest ring next, by the mean size of its buckets around a sample of stored codes.
Front greedy_front(const std::vector<Table>& tables, const uint64_t* codes, uint32_t slots,
                   int words);

// Table after table, radius after radius: Norouzi's progressive search, as in the papers.
Front round_robin_front(const std::vector<Table>& tables, uint32_t slots);

}  // namespace dmih
