// Equal codes are stored once. Learned codes repeat massively; search then runs over the distinct
// ones, and a map says which ids share each.
#pragma once

#include <cstdint>
#include <utility>

#include "bits.hpp"
#include "buffer.hpp"
#include "damage.hpp"
#include "parallel.hpp"

namespace dmih {

// Which ids a slot (a distinct code) stands for. Arrays that would say nothing are empty: `ids`
// where slots are ids, `list_begin` where every slot is one id.
struct IdMap {
    uint32_t slots = 0;
    Buffer<uint32_t> list_begin;  // slot -> its first place in ids; slots + 1 entries
    Buffer<uint32_t> ids;         // ids by slot, ascending within a slot

    uint32_t begin_of(uint32_t slot) const { return list_begin.empty() ? slot : list_begin[slot]; }
    // The places in `ids` of a slot: begin, end.
    std::pair<uint32_t, uint32_t> list(uint32_t slot) const {
        const uint32_t begin = begin_of(slot), end = begin_of(slot + 1);
        if (begin > end || end > ids.size()) damaged();
        return {begin, end};
    }
    void prefetch(uint32_t slot) const {
        if (!list_begin.empty()) __builtin_prefetch(&list_begin[slot]);
    }
    size_t bytes() const { return list_begin.bytes() + ids.bytes(); }
};

// The slots of n ids, by id; none where they are the ids.
Buffer<uint32_t> slots_by_id(const IdMap& map, uint32_t n, const Control& control);

// Slots numbered by their first id. Each id has its own where next to no codes are equal.
IdMap find_distinct(const uint64_t* codes, uint32_t n, int words, const Control& control);

// The same slots in a new order: order[new slot] = old slot; n ids.
IdMap reorder(const IdMap& map, const Buffer<uint32_t>& order, uint32_t n, const Control& control);

// The slots and ids that are kept, numbered anew. Every slot that is kept has an id that is.
IdMap without(const IdMap& map, const Kept& ids, const Kept& slots, const Control& control);

}  // namespace dmih
