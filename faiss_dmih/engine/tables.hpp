// The hash tables of multi-index hashing: one per substring, addressed directly by its bits.
// offsets[key] .. offsets[key + 1] are the places in `slots` of the codes with that key.
//
// A code met in a bucket is a cache miss, and most are far. So beside each slot lies a signature,
// the 32 bits of the code that follow the substring: what it differs by from the query's, added to
// the bucket's distance, is a lower bound of the distance, told without touching the code.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "bits.hpp"
#include "buffer.hpp"
#include "damage.hpp"
#include "hamming.hpp"
#include "offsets.hpp"
#include "parallel.hpp"

namespace dmih {

constexpr int kMaxSubstringBits = 26;

constexpr int kSignatureBits = 32;

struct Table {
    Substring substring;
    Substring signature;
    Offsets offsets;              // of 2^bits buckets
    Buffer<uint32_t> slots;       // ascending within a bucket
    Buffer<uint32_t> signatures;  // one per entry of `slots`, or none

    // The places of a key's codes: begin, end.
    std::pair<uint32_t, uint32_t> bucket(uint32_t key) const {
        const auto [begin, end] = offsets.bucket(key);
        if (begin > end || end > slots.size()) damaged();
        return {begin, end};
    }

    size_t bytes() const { return offsets.bytes() + slots.bytes() + signatures.bytes(); }
};

// Substring lengths for n codes of d bits: m = max(1, floor(d / log2 n)) substrings as in the
// papers, the first d mod m one bit longer, m raised until each is directly addressable (26 bits)
// and the offsets cost at most 8 bytes per code and table, or 1 MB in all.
std::vector<int> default_cuts(int d, uint64_t n);

// m substrings, the first d mod m of them one bit longer.
std::vector<int> even_cuts(int d, int m);

std::vector<Substring> substrings_of(const std::vector<int>& cuts);

// Bytes of one table at most, before it is built.
size_t table_bytes(const Substring& substring, uint32_t slots, bool signatures);

// The bits that a table's signatures are made of: those after its substring, or those before it
// where more are there.
Substring signature_of(const Substring& substring, int d);

// One table per substring of codes of d bits, built side by side.
std::vector<Table> build_tables(const std::vector<Substring>& substrings, bool signatures, int d,
                                const uint64_t* codes, uint32_t slots, const Control& control);

// The slots that are kept, numbered anew.
Table without(const Table& table, const Kept& slots, const Control& control);

}  // namespace dmih
