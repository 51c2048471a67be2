// A part is a run of consecutive ids: an immutable segment (distinct codes, tables) or the tail of
// recent adds (rows only). Searches see both through `Part`.
#pragma once

#include <cstdint>
#include <vector>

#include "dedup.hpp"
#include "front.hpp"
#include "tables.hpp"

namespace dmih {

// Which ids may be answered.
struct Filter {
    virtual ~Filter() = default;
    virtual bool contains(int64_t id) const = 0;
};

struct Segment {
    int64_t base = 0;  // first id
    uint32_t n = 0;    // ids
    uint32_t slots = 0;
    int words = 0;
    Buffer<uint64_t> codes;  // one row per slot
    Distinct distinct;       // arrays empty where every slot is one id
    std::vector<Table> tables;
    Front front;  // the order in which `tables` are probed, and at what cost

    uint32_t slot_of(uint32_t id) const {
        return distinct.slot_of.empty() ? id : distinct.slot_of[id];
    }
};

struct Part {
    uint32_t number;  // its place in the index, oldest first
    int64_t base;
    uint32_t slots;
    int words;
    const uint64_t* codes;
    const Segment* segment;  // null for the tail

    const uint64_t* code(uint32_t slot) const { return codes + size_t(slot) * words; }

    bool has_lists() const { return segment != nullptr && !segment->distinct.ids.empty(); }

    // Calls visit(id) for the slot's ids, ascending, until it returns false.
    template <class Visit>
    void for_each_id(uint32_t slot, const Filter* filter, Visit visit) const {
        if (!has_lists()) {
            const int64_t id = base + slot;
            if (filter == nullptr || filter->contains(id)) visit(id);
            return;
        }
        const Distinct& distinct = segment->distinct;
        for (uint32_t i = distinct.list_begin[slot]; i < distinct.list_begin[slot + 1]; ++i) {
            const int64_t id = base + distinct.ids[i];
            if ((filter == nullptr || filter->contains(id)) && !visit(id)) return;
        }
    }

    uint64_t count(uint32_t slot, const Filter* filter) const {
        if (filter == nullptr) {
            if (!has_lists()) return 1;
            return segment->distinct.list_begin[slot + 1] - segment->distinct.list_begin[slot];
        }
        uint64_t ids = 0;
        for_each_id(slot, filter, [&](int64_t) { return ++ids > 0; });
        return ids;
    }
};

}  // namespace dmih
