// A part in slices of at most 512 codes, for searches that visit only the best of them.
//
// Where there are clusters each slice is a shell of one: codes about as far from its centre. How
// likely is one of them near the query? Let d bits be drawn without regard to one another, the
// query differ from the centre in h of them and a code in r. Both differ from it in about h r / d,
// so the code's distance from the query is hypergeometric: its
//
//     mean      h + r - 2 h r / d
//     variance  4 h r (d - h) (d - r) / (d^2 (d - 1)).
//
// Slices are visited in the order of (d/8 - mean) / deviation, d/8 standing for where neighbours
// are. Bits do depend on one another, which scales the variance, hardly the order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dmih {

constexpr uint32_t kSliceCodes = 512;

// Distances as shares of all bits, in so many parts: one table of ranks for all lengths.
constexpr int kGrid = 256;
constexpr int on_grid(int distance, int words) {
    return distance * kGrid / (64 * words);
}

struct Slice {
    uint32_t begin, end;  // slots
    uint32_t centre;
    uint16_t from, to;  // distances of its codes to the centre
    uint16_t middle;    // the one in the middle, on the grid
};

// Slices, centre by centre, within one from the nearest to it to the farthest.
struct Slices {
    std::vector<Slice> all;
    std::vector<uint32_t> first;  // of each centre, and one more
    uint16_t widest = 0;          // the greatest `middle`

    // The slices of the next centre: [begin, end) cut evenly, distances not set.
    void add(uint32_t begin, uint32_t end);
    uint32_t centres() const { return static_cast<uint32_t>(first.size()) - 1; }
    size_t bytes() const { return all.size() * sizeof(Slice) + first.size() * 4; }
};

// How unlikely neighbours are in a slice with this `middle`, if the query is as far from its centre
// as `distance`, both on the grid: whole numbers below kRanks, equal on all machines.
constexpr int kRanks = 256;
const uint16_t* ranks_at(int distance);
// No slice whose middle is at most `widest` ranks lower, of a centre so far away or farther.
int least_rank(int distance, int widest);

}  // namespace dmih
