#include "partition.hpp"

#include <algorithm>
#include <cstring>
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
    words_ = static_cast<size_t>(words_for(static_cast<int>(d)));
    to_row_ = masks(place);
    to_code_ = masks(order_);
}

// Of the permutation that puts bit b at target[b].
Partition::Masks Partition::masks(const std::vector<int>& target) {
    const size_t halves = target.size() / 4, words = (target.size() + 63) / 64;
    Masks out(halves * 16 * words);
    std::memset(out.data(), 0, out.bytes());
    for (size_t half = 0; half < halves; ++half)
        for (size_t value = 0; value < 16; ++value)
            for (size_t b = 0; b < 4; ++b) {
                if ((value >> b & 1) == 0) continue;
                const size_t at = static_cast<size_t>(target[4 * half + b]);
                out[(half * 16 + value) * words + at / 64] |= uint64_t{1} << (at % 64);
            }
    return out;
}

void Partition::permute(const Masks& masks, const uint8_t* in, uint64_t* out) const {
    std::fill_n(out, words_, 0);
    const uint64_t* mask = masks.data();
    for (size_t byte = 0; byte < order_.size() / 8; ++byte)
        for (const int half : {in[byte] & 15, in[byte] >> 4}) {
            const uint64_t* const row = mask + static_cast<size_t>(half) * words_;
            for (size_t w = 0; w < words_; ++w) out[w] |= row[w];
            mask += 16 * words_;
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
