// Equal codes are stored once. Learned codes repeat massively; search then runs over the distinct
// ones, and a list of ids says who shares each.
#pragma once

#include <cstdint>

#include "buffer.hpp"
#include "parallel.hpp"

namespace dmih {

// Distinct codes ("slots") are numbered by their first id. Where all codes are distinct the arrays
// are empty and a slot is its id.
struct Distinct {
    uint32_t slots = 0;
    Buffer<uint32_t> slot_of;     // id -> slot
    Buffer<uint32_t> list_begin;  // slot -> its first place in ids; slots + 1 entries
    Buffer<uint32_t> ids;         // ids by slot, ascending within a slot
};

Distinct find_distinct(const uint64_t* codes, uint32_t n, int words, const Control& control);

}  // namespace dmih
