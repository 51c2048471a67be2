// Removal: what is there is filtered and numbered anew, in linear passes, rather than built again.
#include <algorithm>

#include "bits.hpp"
#include "index.hpp"

namespace dmih {
namespace {

// Ids of a segment that are kept.
Kept kept_ids(const Segment& segment, const Bits& gone) {
    Bits bits(segment.n);
    for (uint64_t w = 0; w < bits.words(); ++w)
        bits.word(w) = ~gone.from(static_cast<uint64_t>(segment.base) + 64 * w);
    bits.trim();
    return Kept(std::move(bits));
}

// A slot goes with its last id.
Kept kept_slots(const Segment& segment, const Kept& ids, const Control& control) {
    const Buffer<uint32_t> slot_of = slots_by_id(segment.map, segment.n, control);
    Bits bits(segment.slots);
    ids.each(control, [&](uint32_t id) { bits.set(slot_of.empty() ? id : slot_of[id]); });
    return Kept(std::move(bits));
}

uint64_t lost_of(const Segment& segment, const Bits& gone) {
    const uint64_t base = static_cast<uint64_t>(segment.base);
    return gone.count(base, base + segment.n);
}

}  // namespace

IdMap without(const IdMap& map, const Kept& ids, const Kept& slots, const Control& control) {
    IdMap out;
    out.slots = slots.size();
    if (map.ids.empty()) return out;  // slots are ids
    out.ids = Buffer<uint32_t>(ids.size());
    if (slots.size() < ids.size()) out.list_begin = Buffer<uint32_t>(size_t(slots.size()) + 1);
    uint32_t at = 0, slot = 0;
    slots.each(control, [&](uint32_t old) {
        if (!out.list_begin.empty()) out.list_begin[slot] = at;
        for (uint32_t i = map.begin_of(old); i < map.begin_of(old + 1); ++i) {
            if (ids[map.ids[i]]) out.ids[at++] = ids.number(map.ids[i]);
        }
        ++slot;
    });
    if (!out.list_begin.empty()) out.list_begin[slot] = at;
    return out;
}

Clusters Clusters::without(const Kept& slots) const {
    Clusters out;
    out.centres_ = Buffer<uint64_t>(centres_.size());
    std::copy_n(centres_.data(), centres_.size(), out.centres_.data());
    out.first_ = first_;
    out.ring_at_ = ring_at_;
    out.rings_ = rings_;
    for (uint32_t& begin : out.rings_) begin = slots.number(begin);
    out.cut_into_slices();
    return out;
}

Table without(const Table& table, const Kept& slots, const Control& control) {
    Table out;
    out.substring = table.substring;
    out.signature = table.signature;
    out.slots = Buffer<uint32_t>(slots.size());
    if (!table.signatures.empty()) out.signatures = Buffer<uint32_t>(slots.size());
    const bool signing = !out.signatures.empty();
    uint32_t at = 0;
    const size_t keys = table.offsets.keys();
    Buffer<uint32_t> offsets(keys + 1);
    for (size_t key = 0; key < keys; ++key) {
        control.poll(key);
        offsets[key] = at;
        const auto [begin, end] = table.bucket(static_cast<uint32_t>(key));
        for (uint32_t p = begin; p < end; ++p) {
            if (!slots[table.slots[p]]) continue;
            out.slots[at] = slots.number(table.slots[p]);
            if (signing) out.signatures[at] = table.signatures[p];
            ++at;
        }
    }
    offsets[keys] = at;
    out.offsets = Offsets(std::move(offsets));
    out.offsets.pack();
    return out;
}

std::unique_ptr<Segment> Index::without(const Segment& old, const Bits& gone,
                                        const Control& control) const {
    const Kept ids = kept_ids(old, gone), slots = kept_slots(old, ids, control);
    auto segment = std::make_unique<Segment>();
    segment->base = old.base;
    segment->n = ids.size();
    segment->slots = slots.size();
    segment->built_for = old.built_for;
    segment->words = words_;
    const size_t words = static_cast<size_t>(words_);
    segment->codes = Buffer<uint64_t>(slots.size() * words);
    segment->tables.resize(old.tables.size());
    parallel_for(control, old.tables.size() + 2, [&](size_t task) {
        if (task < old.tables.size()) {
            segment->tables[task] = dmih::without(old.tables[task], slots, control);
        } else if (task == old.tables.size()) {
            uint64_t* out = segment->codes.data();
            slots.each(control, [&](uint32_t s) {
                out = std::copy_n(old.codes.data() + s * words, words, out);
            });
        } else {
            segment->map = dmih::without(old.map, ids, slots, control);
        }
    });
    if (old.clusters.size() > 0) segment->clusters = old.clusters.without(slots);
    find_front(*segment);
    if (options_.mode == Mode::Auto && !segment->tables.empty()) segment->take_item_ns(old);
    segment->experiences = old.experiences;
    return segment;
}

uint64_t Index::remove(const std::function<Selection(const State&)>& select,
                       const Control& control) {
    Selection selection = select(state(control));
    Change change(*this, control);
    if (selection.version != version_) {
        change.may_read(true);
        selection = select({size(), version_});
        change.may_read(false);
    }
    const Bits& gone = selection.ids;
    const uint64_t removed = gone.count();
    if (removed == 0) return 0;
    if (removed == size()) {
        control.check();
        clear();
        return removed;
    }
    // Segments that have kept less than half of what their tables and clusters were made for are
    // made anew, and so are the younger ones, which are smaller, together with the first such.
    size_t keep = 0;
    for (; keep < segments_.size(); ++keep) {
        const Segment& segment = *segments_[keep];
        const uint64_t lost = lost_of(segment, gone);
        if (lost > 0 && 2 * (segment.n - lost) < segment.built_for) break;
    }
    std::vector<std::unique_ptr<Segment>> filtered(keep);  // null: nothing is gone
    uint64_t kept = 0;
    for (size_t s = 0; s < keep; ++s) {
        const uint64_t lost = lost_of(*segments_[s], gone);
        if (lost > 0) filtered[s] = without(*segments_[s], gone, control);
        kept += segments_[s]->n - lost;
    }
    const size_t words = static_cast<size_t>(words_);
    const uint64_t rest = size() - removed - kept;
    const bool rebuilding = keep < segments_.size() && rest > kTail;
    Buffer<uint64_t> rows((rebuilding ? rest : rest > 0 ? kTail : 0) * words);
    copy_rows(keep, &gone, rows.data(), control);
    std::unique_ptr<Segment> rebuilt;
    if (rebuilding) rebuilt = build(keep, static_cast<int64_t>(kept), std::move(rows), control);
    segments_.reserve(keep + 1);
    control.check();

    segments_.resize(keep);  // nothing throws from here on
    tail_base_ = 0;
    for (size_t s = 0; s < keep; ++s) {
        if (filtered[s] != nullptr) segments_[s] = std::move(filtered[s]);
        segments_[s]->base = static_cast<int64_t>(tail_base_);
        tail_base_ += segments_[s]->n;
    }
    if (rebuilt != nullptr) {
        tail_base_ += rebuilt->n;
        segments_.push_back(std::move(rebuilt));
        tail_size_ = 0;
    } else {
        tail_ = std::move(rows);
        tail_size_ = static_cast<uint32_t>(rest);
    }
    return removed;
}

}  // namespace dmih
