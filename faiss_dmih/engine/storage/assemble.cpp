#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "pieces.hpp"

namespace dmih {
namespace {

// Far more than growth leaves; each takes some kilobytes of memory, whatever the file says.
constexpr size_t kMaxSegments = 1024;

// Whether it is the table that building it of these codes would give.
bool is_sound(const Table& table, const Segment& segment, const Control& control) {
    constexpr uint32_t kAhead = 16;  // codes in flight
    const auto code_of = [&](uint32_t slot) {
        return segment.codes.data() + size_t{slot} * segment.words;
    };
    const size_t keys = table.offsets.keys();
    for (size_t key = 0, ended = 0; key < keys; ++key) {
        const auto [begin, end] = table.offsets.bucket(key);
        if (begin != ended || begin > end || end > segment.slots) return false;
        if (key == keys - 1 && end != segment.slots) return false;
        ended = end;
    }
    for (size_t key = 0; key < keys; ++key) {
        if (key % 4096 == 0) control.poll();
        const auto [begin, end] = table.offsets.bucket(key);
        // As many entries as slots, different ones within a bucket and of its key: each slot once.
        int64_t last = -1;
        for (uint32_t p = begin; p < end; ++p) {
            if (p + kAhead < segment.slots) __builtin_prefetch(code_of(table.slots[p + kAhead]));
            const uint32_t slot = table.slots[p];
            if (slot <= last || slot >= segment.slots) return false;
            last = slot;
            if (table.substring.of(code_of(slot)) != key) return false;
            if (!table.signatures.empty() &&
                table.signatures[p] != table.signature.of(code_of(slot)))
                return false;
        }
    }
    return true;
}

// Null where none is there, or it makes no sense. `given`: the cuts of the index, if it has some.
std::shared_ptr<const Partition> partition_of(const Pieces& pieces, int d,
                                              const std::vector<int>& given) {
    Buffer<uint32_t> bits;
    if (!pieces.get(tags::kPartition, 0, bits)) return nullptr;
    const size_t order = static_cast<size_t>(d);
    if (bits.size() < order || bits.size() > 2 * order) return nullptr;
    const auto as_int = [](uint32_t value) { return static_cast<int>(std::min(value, 1u << 30)); };
    std::vector<int> values(bits.size());
    std::transform(bits.data(), bits.data() + bits.size(), values.begin(), as_int);
    const auto cuts = values.begin() + d;
    if (!given.empty() && !std::equal(given.begin(), given.end(), cuts, values.end()))
        return nullptr;
    try {
        return std::make_shared<const Partition>(std::vector<int>(values.begin(), cuts),
                                                 std::vector<int>(cuts, values.end()));
    } catch (const std::invalid_argument&) {
        return nullptr;
    }
}

}  // namespace

Assembler::Assembler(const Contents& contents, const Pieces& pieces, bool mapped,
                     const Control& control)
    : d_(contents.options.d),
      words_(static_cast<size_t>(words_for(d_))),
      mode_(contents.options.mode),
      ntotal_(contents.ntotal),
      pieces_(pieces),
      mapped_(mapped),
      control_(control),
      codes_(std::make_shared<Buffer<uint64_t>>()),
      partitioned_(contents.version == kPartitioned) {
    pieces_.get(tags::kCodes, 0, *codes_);
    if (partitioned_) partition_ = partition_of(pieces_, d_, contents.options.cuts);
}

void Assembler::arrange_bits() {
    change_order(nullptr, partition_.get(), codes_->data(), ntotal_, static_cast<int>(words_),
                 control_);
}

Buffer<uint64_t> Assembler::rows(uint64_t first, uint64_t n) const {
    Buffer<uint64_t> view(codes_, codes_->data() + first * words_, static_cast<size_t>(n) * words_);
    if (!mapped_ || partition_ == nullptr) return view;
    Buffer<uint64_t> out(std::as_const(view));
    change_order(nullptr, partition_.get(), out.data(), n, static_cast<int>(words_), control_);
    return out;
}

std::vector<PartEntry> Assembler::parts() const {
    Buffer<PartEntry> stored;
    if (!pieces_.get(tags::kParts, 0, stored) || stored.size() > kMaxSegments) return {};
    // What is looked at is what is used: somebody may write to the file meanwhile.
    const std::vector<PartEntry> found(stored.data(), stored.data() + stored.size());
    uint64_t next = 0;
    for (const PartEntry& part : found) {
        if (part.base != next || part.n == 0 || part.n > ntotal_ - next || part.slots == 0 ||
            part.slots > part.n)
            return {};
        next += part.n;
    }
    return found;
}

std::unique_ptr<Segment> Assembler::empty(const PartEntry& part) const {
    auto out = std::make_unique<Segment>();
    out->base = static_cast<int64_t>(part.base);
    out->n = out->built_for = part.n;
    out->slots = out->map.slots = part.slots;
    out->words = static_cast<int>(words_);
    return out;
}

std::unique_ptr<Segment> Assembler::plain(const PartEntry& part) const {
    PartEntry each_a_slot = part;
    each_a_slot.slots = part.n;
    std::unique_ptr<Segment> out = empty(each_a_slot);
    out->codes = rows(part.base, part.n);
    // In memory, a view keeps the codes of all segments: not for the sake of a few.
    if (!mapped_ && uint64_t{part.n} * 2 < ntotal_)
        out->codes = Buffer<uint64_t>(std::as_const(out->codes));
    return out;
}

std::unique_ptr<Segment> Assembler::segment(const PartEntry& part, uint32_t number) const {
    std::unique_ptr<Segment> out;
    const uint64_t words = part.slots * words_;
    // Without it nobody knows which bit of a row is which.
    if (mapped_ && lacks_partition()) return nullptr;
    if ((part.has & kHasIds) == 0) {
        if (part.slots != part.n) return nullptr;
        if (mapped_ && partitioned_) {
            out = empty(part);
            if (!pieces_.get(tags::kRows, number, 0, words, out->codes)) return nullptr;
        } else {
            out = plain(part);
        }
    } else {
        out = empty(part);
        if (!find_map(part, number, out->map)) return nullptr;
        if (!(mapped_ ? pieces_.get(tags::kRows, number, 0, words, out->codes)
                      : gather(part, *out)))
            return nullptr;
    }
    if ((part.has & kHasClusters) != 0 && !find_clusters(number, *out)) return nullptr;
    if (part.tables > 0 && !find_tables(part, number, *out)) return nullptr;
    return out;
}

bool Assembler::find_map(const PartEntry& part, uint32_t number, IdMap& map) const {
    if (!pieces_.get(tags::kIds, number, 0, part.n, map.ids)) return false;
    if ((part.has & kHasLists) == 0) return part.slots == part.n;
    return pieces_.get(tags::kLists, number, 0, uint64_t{part.slots} + 1, map.list_begin);
}

// The rows of slots, out of the codes of ids. False: the map does not say which codes are equal.
bool Assembler::gather(const PartEntry& part, Segment& out) const {
    constexpr uint32_t kAhead = 16;
    const IdMap& map = out.map;
    const uint64_t* const codes = codes_->data() + part.base * words_;
    Bits met(part.n);
    out.codes = Buffer<uint64_t>(part.slots * words_);
    uint32_t at = 0;
    for (uint32_t slot = 0; slot < part.slots; ++slot) {
        const uint32_t begin = map.begin_of(slot), end = map.begin_of(slot + 1);
        if (begin != at || end <= begin || end > part.n) return false;
        uint64_t* const row = out.codes.data() + slot * words_;
        for (; at < end; ++at) {
            if (at + kAhead < part.n) __builtin_prefetch(codes + map.ids[at + kAhead] * words_);
            const uint32_t id = map.ids[at];
            if (id >= part.n || met[id]) return false;
            if (at > begin && id < map.ids[at - 1]) return false;
            met.set(id);
            const uint64_t* const code = codes + id * words_;
            if (at == begin)
                std::copy_n(code, words_, row);
            else if (std::memcmp(code, row, words_ * 8) != 0)
                return false;
        }
    }
    return at == part.n;
}

bool Assembler::find_clusters(uint32_t number, Segment& out) const {
    Buffer<uint64_t> centres;
    Buffer<uint32_t> rings;
    return pieces_.get(tags::kCentres, number, centres) &&
           pieces_.get(tags::kRings, number, rings) &&
           Clusters::from(std::move(centres), rings, out.slots, out.words, out.clusters) &&
           (mapped_ || out.clusters.are_of(out.codes.data(), out.words));
}

bool Assembler::find_tables(const PartEntry& part, uint32_t number, Segment& out) const {
    Buffer<uint32_t> cuts;
    if (mode_ == Mode::Scan || !pieces_.get(tags::kCuts, number, 0, part.tables, cuts))
        return false;
    int begin = 0;
    for (uint32_t t = 0; t < part.tables; ++t) {
        const uint32_t bits = cuts[t];
        if (bits < 1 || bits > kMaxSubstringBits || bits > static_cast<uint32_t>(d_ - begin))
            return false;
        Table table;
        table.substring = {begin, static_cast<int>(bits)};
        table.signature = signature_of(table.substring, d_);
        begin += static_cast<int>(bits);
        Buffer<uint32_t> offsets;
        if (!pieces_.get(tags::kOffsets, number, t, (uint64_t{1} << bits) + 1, offsets) ||
            !pieces_.get(tags::kSlots, number, t, part.slots, table.slots))
            return false;
        if ((part.has & kHasSigns) != 0 &&
            !pieces_.get(tags::kSigns, number, t, part.slots, table.signatures))
            return false;
        table.offsets = Offsets(std::move(offsets));
        out.tables.push_back(std::move(table));
    }
    if (!find_front(number, out)) return false;
    std::atomic<bool> sound{true};
    if (!mapped_)
        parallel_for(control_, out.tables.size(), [&](size_t t) {
            if (is_sound(out.tables[t], out, control_))
                out.tables[t].offsets.pack();
            else
                sound = false;
        });
    return sound;
}

// Any order of steps is right (front.hpp) that raises the radius of a table by one at each of them,
// up to where one table has shown everything.
bool Assembler::find_front(uint32_t number, Segment& out) const {
    Buffer<uint64_t> stored;
    if (!pieces_.get(tags::kSteps, number, stored) || stored.size() % 2 == 0) return false;
    const size_t count = stored.size() / 2;
    Front& front = out.front;
    std::vector<int> next(out.tables.size(), 0);
    bool ended = false;
    for (size_t s = 0; s < count; ++s) {
        StepEntry entry;
        std::memcpy(&entry, &stored[s], sizeof entry);
        const Step step{entry.table, static_cast<int>(entry.radius)};
        if (ended || step.table >= next.size() || step.radius != next[step.table]) return false;
        ended = step.radius == out.tables[step.table].substring.bits;
        ++next[step.table];
        front.steps.push_back(step);
        if (mode_ == Mode::Auto && step.radius == 0 && front.own_buckets == s) ++front.own_buckets;
    }
    for (size_t s = 0; s <= count; ++s) {
        double items;
        std::memcpy(&items, &stored[count + s], sizeof items);
        const bool later = s == 0 ? items == 0 : items > front.items.back();
        if (!std::isfinite(items) || !later) return false;
        front.items.push_back(items);
    }
    return ended;
}

}  // namespace dmih
