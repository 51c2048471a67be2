// The hash tables of multi-index hashing: one per substring, addressed directly by its bits.
// offsets[key] .. offsets[key + 1] are the places in `postings` of the slots whose code has that
// key.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "hamming.hpp"
#include "parallel.hpp"

namespace dmih {

constexpr int kMaxSubstringBits = 26;

struct Table {
    Substring substring;
    Buffer<uint32_t> offsets;   // 2^bits + 1
    Buffer<uint32_t> postings;  // slots, ascending within a bucket

    size_t bytes() const { return offsets.bytes() + postings.bytes(); }
};

// Substring lengths for n codes of d bits: m = max(1, floor(d / log2 n)) substrings as in the
// papers, the first d mod m one bit longer, m raised until each is directly addressable (26 bits)
// and the offsets cost at most 8 bytes per code and table, or 1 MB in all.
std::vector<int> default_cuts(int d, uint64_t n);

std::vector<Substring> substrings_of(const std::vector<int>& cuts);

// Bytes of one table, before it is built.
size_t table_bytes(const Substring& substring, uint32_t slots);

// One table per substring, built side by side.
std::vector<Table> build_tables(const std::vector<Substring>& substrings, const uint64_t* codes,
                                uint32_t slots, int words, const Control& control);

}  // namespace dmih
