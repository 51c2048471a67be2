// An index to bytes. Everything is visited twice: for its checksum, which stands in front, and to
// be written.
#include <algorithm>
#include <cstring>
#include <functional>

#include "../crc32c.hpp"
#include "storage.hpp"

namespace dmih {
namespace {

constexpr size_t kChunk = 1 << 20;

using Visit = std::function<void(const void*, size_t)>;

// A section to be: its bytes, piece by piece.
struct Outgoing {
    SectionEntry entry;
    std::function<void(const Visit&)> each_piece;
};

uint64_t align(uint64_t size) {
    return (size + kAlignment - 1) / kAlignment * kAlignment;
}

class Layout {
public:
    explicit Layout(size_t cuts) : cuts_(cuts) {}

    void add(Tag tag, size_t segment, size_t table, uint64_t size,
             std::function<void(const Visit&)> each_piece) {
        const SectionEntry entry{
            tag, static_cast<uint32_t>(segment), static_cast<uint32_t>(table), 0, size, 0, 0};
        sections_.push_back({entry, std::move(each_piece)});
    }

    // Of memory that outlives the layout.
    template <class T>
    void add(Tag tag, size_t segment, size_t table, const T* data, size_t count) {
        add(tag, segment, table, count * sizeof(T), [data, count](const Visit& visit) {
            const char* at = reinterpret_cast<const char*>(data);
            for (size_t left = count * sizeof(T), n; left > 0; left -= n, at += n) {
                n = std::min(left, kChunk);
                visit(at, n);
            }
        });
    }

    template <class T>
    void add(Tag tag, size_t segment, std::vector<T> values) {
        const size_t bytes = values.size() * sizeof(T);
        add(tag, segment, 0, bytes, [kept = std::move(values), bytes](const Visit& visit) {
            if (bytes > 0) visit(kept.data(), bytes);
        });
    }

    uint64_t header_bytes() const {
        return sizeof(FileHeader) + cuts_ * 4 + sections_.size() * sizeof(SectionEntry);
    }

    // Places the sections and returns the size of all.
    uint64_t place() {
        uint64_t at = align(header_bytes());
        for (Outgoing& section : sections_) {
            section.entry.offset = at;
            at = align(at + section.entry.size);
        }
        return at;
    }

    std::vector<Outgoing>& sections() { return sections_; }

private:
    size_t cuts_;
    std::vector<Outgoing> sections_;
};

}  // namespace

// The sections of an index in memory, in the order in which they are written.
static void lay_out(size_t words, uint64_t ntotal, const Partition* partition,
                    const std::vector<std::unique_ptr<Segment>>& segments,
                    const Buffer<uint64_t>& tail, uint32_t tail_size, const Control& control,
                    Layout& out) {
    out.add(tags::kCodes, 0, 0, ntotal * words * 8,
            [&segments, &tail, tail_size, words, partition, &control](const Visit& visit_codes) {
                constexpr uint32_t kRows = 4096;
                Buffer<uint64_t> rows(kRows * words), codes(partition ? kRows * words : 0);
                const auto visit = [&](const uint64_t* some, uint32_t n) {
                    if (partition != nullptr) {
                        std::copy_n(some, n * words, codes.data());
                        change_order(partition, nullptr, codes.data(), n, static_cast<int>(words),
                                     control);
                        some = codes.data();
                    }
                    visit_codes(some, n * words * 8);
                };
                for (const auto& segment : segments) {
                    const Buffer<uint32_t> slot_of = slots_by_id(segment->map, segment->n, control);
                    for (uint32_t first = 0; first < segment->n; first += kRows) {
                        const uint32_t n = std::min(kRows, segment->n - first);
                        if (segment->map.ids.empty()) {
                            visit(segment->codes.data() + first * words, n);
                            continue;
                        }
                        for (uint32_t i = 0; i < n; ++i)
                            std::copy_n(segment->codes.data() + slot_of[first + i] * words, words,
                                        rows.data() + i * words);
                        visit(rows.data(), n);
                    }
                }
                for (uint32_t first = 0; first < tail_size; first += kRows)
                    visit(tail.data() + first * words, std::min(kRows, tail_size - first));
            });
    if (partition != nullptr) {
        std::vector<uint32_t> bits(partition->order().begin(), partition->order().end());
        bits.insert(bits.end(), partition->cuts().begin(), partition->cuts().end());
        out.add(tags::kPartition, 0, std::move(bits));
    }

    std::vector<PartEntry> parts;
    for (const auto& s : segments) {
        uint32_t has = 0;
        if (!s->map.ids.empty()) has |= kHasIds;
        if (!s->map.list_begin.empty()) has |= kHasLists;
        if (s->clusters.size() > 0) has |= kHasClusters;
        if (!s->tables.empty() && !s->tables.front().signatures.empty()) has |= kHasSigns;
        parts.push_back({static_cast<uint64_t>(s->base), s->n, s->slots,
                         static_cast<uint32_t>(s->tables.size()), has});
    }
    out.add(tags::kParts, 0, std::move(parts));

    for (size_t number = 0; number < segments.size(); ++number) {
        const Segment& s = *segments[number];
        const auto array = [&](Tag tag, size_t table, const auto& buffer) {
            if (!buffer.empty()) out.add(tag, number, table, buffer.data(), buffer.size());
        };
        array(tags::kIds, 0, s.map.ids);
        array(tags::kLists, 0, s.map.list_begin);
        if (!s.map.ids.empty() || partition != nullptr) array(tags::kRows, 0, s.codes);
        if (s.clusters.size() > 0) {
            out.add(tags::kCentres, number, 0, s.clusters.centres(), s.clusters.size() * words);
            out.add(tags::kRings, number, s.clusters.rings());
        }
        if (s.tables.empty()) continue;
        std::vector<uint32_t> cuts;
        for (const Table& table : s.tables)
            cuts.push_back(static_cast<uint32_t>(table.substring.bits));
        out.add(tags::kCuts, number, std::move(cuts));
        std::vector<uint64_t> steps;  // pairs of 32 bits, then doubles
        for (const Step& step : s.front.steps)
            steps.push_back(step.table | uint64_t{static_cast<uint32_t>(step.radius)} << 32);
        for (double items : s.front.items) {
            uint64_t bits;
            std::memcpy(&bits, &items, 8);
            steps.push_back(bits);
        }
        out.add(tags::kSteps, number, std::move(steps));
        for (size_t t = 0; t < s.tables.size(); ++t) {
            const Offsets& offsets = s.tables[t].offsets;
            const size_t keys = offsets.keys();
            out.add(tags::kOffsets, number, t, (keys + 1) * 4,
                    [&offsets, keys](const Visit& visit) {
                        constexpr size_t kAtOnce = 16384;
                        uint32_t ends[kAtOnce] = {0};
                        visit(ends, 4);  // where the first begins
                        for (size_t first = 0; first < keys; first += kAtOnce) {
                            const size_t n = std::min(kAtOnce, keys - first);
                            for (size_t i = 0; i < n; ++i)
                                ends[i] = offsets.bucket(first + i).second;
                            visit(ends, n * 4);
                        }
                    });
            array(tags::kSlots, t, s.tables[t].slots);
            array(tags::kSigns, t, s.tables[t].signatures);
        }
    }
}

uint64_t Storage::size_of(const Index& index, const Control& control) {
    const Gate::Visit visit(index.gate_, Gate::Visit::kShared, control);
    if (index.mapped()) return index.image_.size;
    Layout layout(index.options_.cuts.size());
    lay_out(static_cast<size_t>(index.words_), index.size(), index.partition_.get(),
            index.segments_, index.tail_, index.tail_size_, control, layout);
    return layout.place();
}

void Storage::write(const Index& index, Sink& sink, const Control& control) {
    const Gate::Visit visit(index.gate_, Gate::Visit::kShared, control);
    if (index.mapped()) {
        for (size_t at = 0; at < index.image_.size; at += kChunk) {
            sink.write(index.image_.data + at, std::min(kChunk, index.image_.size - at));
            control.poll();
        }
        return;
    }
    const Options& options = index.options_;
    Layout layout(options.cuts.size());
    lay_out(static_cast<size_t>(index.words_), index.size(), index.partition_.get(),
            index.segments_, index.tail_, index.tail_size_, control, layout);

    FileHeader header{};
    std::memcpy(header.magic, kMagic, sizeof kMagic);
    header.version = index.partition_ == nullptr ? kFormatVersion : kPartitioned;
    header.size = layout.place();
    header.ntotal = index.size();
    header.d = static_cast<uint32_t>(options.d);
    header.mode = static_cast<uint32_t>(options.mode);
    header.memory_budget = options.memory_budget.value_or(UINT64_MAX);
    header.n_cuts = static_cast<uint32_t>(options.cuts.size());
    header.n_sections = static_cast<uint32_t>(layout.sections().size());

    std::vector<uint8_t> rest;
    const auto append = [&](const void* data, size_t size) {
        const uint8_t* bytes = static_cast<const uint8_t*>(data);
        rest.insert(rest.end(), bytes, bytes + size);
    };
    for (int cut : options.cuts) append(&cut, 4);
    for (Outgoing& section : layout.sections()) {
        section.each_piece([&](const void* data, size_t size) {
            section.entry.crc = crc32c(data, size, section.entry.crc);
            control.poll();
        });
        append(&section.entry, sizeof section.entry);
    }
    header.crc =
        crc32c(rest.data(), rest.size(), crc32c(&header, sizeof header - sizeof header.crc));

    uint64_t at = 0;
    const Visit put = [&](const void* data, size_t size) {
        sink.write(data, size);
        at += size;
        control.poll();
    };
    const auto pad = [&] {
        static constexpr char kZeros[kAlignment] = {};
        if (align(at) > at) put(kZeros, align(at) - at);
    };
    put(&header, sizeof header);
    if (!rest.empty()) put(rest.data(), rest.size());
    pad();
    for (Outgoing& section : layout.sections()) {
        section.each_piece(put);
        pad();
    }
}

}  // namespace dmih
