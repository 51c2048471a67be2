// A part is a run of consecutive ids: an immutable segment (distinct codes, tables) or the tail of
// recent adds (rows only). Searches see both through `Part`.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "clusters.hpp"
#include "dedup.hpp"
#include "front.hpp"
#include "planner.hpp"
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
    IdMap map;
    Clusters clusters;  // none in small segments
    std::vector<Table> tables;
    Front front;                      // the order in which `tables` are probed, and at what cost
    mutable Experiences experiences;  // the planner's

    // What an item costs here, in nanoseconds. Measured when it is first asked for: that touches
    // pages of a mapped file.
    double item_ns() const;

    uint32_t slot_of(uint32_t id) const { return map.slot_of.empty() ? id : map.slot_of[id]; }

private:
    mutable std::once_flag measured_;
    mutable double item_ns_ = 0;
};

struct Part {
    uint32_t number;  // its place in the index, oldest first
    int64_t base;
    uint32_t slots;
    int words;
    const uint64_t* codes;
    const Segment* segment;  // null for the tail

    const uint64_t* code(uint32_t slot) const { return codes + size_t(slot) * words; }

    // Slots are ids, one each and in order.
    bool ids_ascend() const { return segment == nullptr || segment->map.ids.empty(); }

    const Clusters* clusters() const {
        return segment != nullptr && segment->clusters.size() > 0 ? &segment->clusters : nullptr;
    }

    // Calls visit(id) for the slot's ids, ascending, until it returns false.
    template <class Visit>
    void for_each_id(uint32_t slot, const Filter* filter, Visit visit) const {
        if (ids_ascend()) {
            const int64_t id = base + slot;
            if (filter == nullptr || filter->contains(id)) visit(id);
            return;
        }
        const IdMap& map = segment->map;
        const auto [begin, end] = map.list(slot);
        for (uint32_t i = begin; i < end; ++i) {
            const uint32_t in_segment = map.ids[i];
            if (in_segment >= segment->n) damaged();
            const int64_t id = base + in_segment;
            if ((filter == nullptr || filter->contains(id)) && !visit(id)) return;
        }
    }

    void prefetch_count(uint32_t slot) const {
        if (!ids_ascend()) segment->map.prefetch(slot);
    }

    void prefetch_ids(uint32_t slot) const {
        if (!ids_ascend()) __builtin_prefetch(&segment->map.ids[segment->map.begin_of(slot)]);
    }

    uint64_t count(uint32_t slot, const Filter* filter) const {
        if (filter == nullptr) {
            if (ids_ascend()) return 1;
            const auto [begin, end] = segment->map.list(slot);
            return end - begin;
        }
        uint64_t ids = 0;
        for_each_id(slot, filter, [&](int64_t) { return ++ids > 0; });
        return ids;
    }
};

}  // namespace dmih
