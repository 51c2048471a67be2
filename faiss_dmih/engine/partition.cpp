#include "partition.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "hamming.hpp"
#include "tables.hpp"

namespace dmih {

Partition::Partition(std::vector<int> order, std::vector<int> cuts)
    : order_(std::move(order)), cuts_(std::move(cuts)) {
    const size_t d = order_.size();
    if (d == 0 || d % 8 != 0 || d > static_cast<size_t>(kMaxBits))
        throw std::invalid_argument("a partition of " + std::to_string(d) +
                                    " bits, expected a multiple of 8 in [8, 4096]");
    std::vector<int> place(d, -1);
    for (size_t i = 0; i < d; ++i) {
        const size_t bit = static_cast<size_t>(order_[i]);
        if (bit >= d || place[bit] >= 0)
            throw std::invalid_argument("the order of a partition has bit " +
                                        std::to_string(order_[i]) + " twice or beyond the " +
                                        std::to_string(d) + " there are");
        place[bit] = static_cast<int>(i);
    }
    const auto fits = [](int cut) { return cut >= 1 && cut <= kMaxSubstringBits; };
    if (!std::all_of(cuts_.begin(), cuts_.end(), fits) ||
        std::accumulate(cuts_.begin(), cuts_.end(), size_t{0}) != d)
        throw std::invalid_argument("the cuts of a partition do not sum to its " +
                                    std::to_string(d) + " bits, or one is not in [1, 26]");
    place_ = std::move(place);
}

// Of 64 bits at a time; where each comes from is read in order, so that the processor works on
// several at once.
void Partition::permute(const std::vector<int>& from, const uint8_t* in, uint64_t* out) {
    const int* source = from.data();
    for (size_t left = from.size(); left > 0;) {
        const size_t bits = std::min<size_t>(left, 64);
        uint64_t word = 0;
        for (size_t b = 0; b < bits; ++b) {
            const unsigned at = static_cast<unsigned>(source[b]);
            word |= uint64_t{in[at >> 3] >> (at & 7) & 1u} << b;
        }
        *out++ = word;
        source += bits;
        left -= bits;
    }
}

void change_order(const Partition* from, const Partition* to, uint64_t* rows, uint64_t n, int words,
                  const Control& control) {
    if (from == to) return;
    uint64_t code[kMaxWords] = {};
    for (uint64_t i = 0; i < n; ++i, rows += words) {
        control.poll(i);
        std::copy_n(rows, words, code);
        if (from != nullptr) from->to_code(rows, code);
        if (to != nullptr)
            to->to_row(reinterpret_cast<const uint8_t*>(code), rows);
        else
            std::copy_n(code, words, rows);
    }
}

}  // namespace dmih
