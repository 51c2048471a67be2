// Which bits of a code go into which table. Distances do not change when the bits of all codes and
// queries are put into another order, so an index keeps its rows with their bits in the order that
// makes tables of consecutive ones good, and knows of it only where codes come in and go out.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel.hpp"

namespace dmih {

class Partition {
public:
    // Bit i of a row is bit order[i] of the code; `cuts` are the lengths of the substrings. Throws
    // std::invalid_argument where the one is no permutation, or the other does not sum to its size.
    Partition(std::vector<int> order, std::vector<int> cuts);

    const std::vector<int>& order() const { return order_; }
    const std::vector<int>& cuts() const { return cuts_; }
    bool operator==(const Partition& other) const {
        return order_ == other.order_ && cuts_ == other.cuts_;
    }

    // The row of a code of d / 8 bytes.
    void to_row(const uint8_t* code, uint64_t* row) const { permute(order_, code, row); }
    // The code of a row, as words: the bits beyond d are zero.
    void to_code(const uint64_t* row, uint64_t* code) const {
        permute(place_, reinterpret_cast<const uint8_t*>(row), code);
    }

private:
    // Bit i of `out` is bit from[i] of `in`. Bit by bit, 0.6 ns each: masks to be combined, of
    // where the bits of each half byte go, take two thirds of that at 64 bits, as much at 256, and
    // many times as much beyond (and megabytes), where they leave the caches.
    static void permute(const std::vector<int>& from, const uint8_t* in, uint64_t* out);

    std::vector<int> order_, cuts_;
    std::vector<int> place_;  // bit b of a code is bit place_[b] of its row
};

// n rows whose bits are as `from` has them: to where `to` has them. Null: as codes have them.
void change_order(const Partition* from, const Partition* to, uint64_t* rows, uint64_t n, int words,
                  const Control& control);

}  // namespace dmih
