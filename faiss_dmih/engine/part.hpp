// A part is a run of consecutive ids: an immutable segment (distinct codes, tables) or the tail of
// recent adds (rows only). Searches see both through `Part`.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bits.hpp"
#include "clusters.hpp"
#include "dedup.hpp"
#include "front.hpp"
#include "planner.hpp"
#include "tables.hpp"

namespace dmih {

// Which ids may be answered: a set of them or, where making one would take longer than the search,
// something that is asked about one after another, from any thread.
struct Filter {
    struct Asked {
        virtual ~Asked() = default;
        virtual bool contains(int64_t id) const = 0;
    };

    const Bits* ids = nullptr;
    const Asked* asked = nullptr;
    uint64_t version = 0;  // the state of the index that `ids` are those of

    bool contains(int64_t id) const {
        return ids != nullptr ? (*ids)[static_cast<uint64_t>(id)] : asked->contains(id);
    }
};

struct Segment {
    int64_t base = 0;  // first id
    uint32_t n = 0;    // ids
    uint32_t slots = 0;
    uint32_t built_for = 0;  // so many ids, of which some may have been removed since
    int words = 0;
    Buffer<uint64_t> codes;  // one row per slot
    IdMap map;
    Clusters clusters;  // none in small segments
    std::vector<Table> tables;
    Front front;  // the order in which `tables` are probed, and at what cost
    // The planner's; shared with what is left of this segment after a removal.
    std::shared_ptr<Experiences> experiences = std::make_shared<Experiences>();

    // What an item costs here, in nanoseconds. Measured when it is first asked for: that touches
    // pages of a mapped file.
    double item_ns() const;
    // It costs what it did in `other`, which this one is left of.
    void take_item_ns(const Segment& other);

    // In the order of the ids.
    void copy_rows(uint64_t* out, const Control& control) const;

    // Of single ids. The first call makes an array of all, which is kept.
    uint32_t slot_of(uint32_t id) const { return map.ids.empty() ? id : slots_by_id()[id]; }
    size_t slots_by_id_bytes() const { return slots_by_id_bytes_.load(std::memory_order_relaxed); }

private:
    const Buffer<uint32_t>& slots_by_id() const;

    mutable std::once_flag measured_;
    mutable double item_ns_ = 0;
    mutable std::once_flag listed_;
    mutable Buffer<uint32_t> slots_by_id_;
    mutable std::atomic<size_t> slots_by_id_bytes_{0};
};

struct Part {
    uint32_t number;  // its place among the parts that are searched
    int64_t base;
    uint32_t slots;
    int words;
    const uint64_t* codes;
    const Segment* segment;            // null for the tail
    const Filter* filter = nullptr;    // of the part's ids; null: all may be answered
    double share = 1;                  // of its ids that may be, about
    const uint32_t* counts = nullptr;  // how many those are, by slot, if that is known

    const uint64_t* code(uint32_t slot) const { return codes + size_t(slot) * words; }

    // Slots are ids, one each and in order.
    bool ids_ascend() const { return segment == nullptr || segment->map.ids.empty(); }
    uint32_t ids() const { return segment == nullptr ? slots : segment->n; }

    const Clusters* clusters() const {
        return segment != nullptr && segment->clusters.size() > 0 ? &segment->clusters : nullptr;
    }

    // Calls visit(id) for the slot's ids that may be answered, ascending, until it returns false.
    template <class Visit>
    void for_each_id(uint32_t slot, Visit visit) const {
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

    // The slot's ids that may be answered.
    uint64_t count(uint32_t slot) const {
        if (counts != nullptr) return counts[slot];
        if (filter == nullptr) {
            if (ids_ascend()) return 1;
            const auto [begin, end] = segment->map.list(slot);
            return end - begin;
        }
        uint64_t out = 0;
        for_each_id(slot, [&](int64_t) { return ++out > 0; });
        return out;
    }
};

}  // namespace dmih
