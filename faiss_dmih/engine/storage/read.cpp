// An index from bytes that anybody may have written.
#include <algorithm>
#include <cstring>

#include "../crc32c.hpp"
#include "pieces.hpp"

namespace dmih {
namespace {

constexpr size_t kChunk = 1 << 20;
constexpr uint32_t kMaxCuts = kMaxBits, kMaxSections = 1 << 20;
// Tables that are built for want of sound ones take so many times the file at most.
constexpr uint64_t kBuildAtMost = 16;
// Bytes of a partition: each bit may be a substring of its own.
constexpr uint64_t kLongestPartition = 2 * kMaxBits * sizeof(uint32_t);

std::string text(uint64_t number) {
    return std::to_string(number);
}

[[noreturn]] void truncated(uint64_t got, uint64_t expected) {
    throw FormatError("the index is truncated: it says that it has " + text(expected) +
                      " bytes, and there are " + text(got));
}

void check(bool right, const std::string& what) {
    if (!right) throw FormatError("not a sound index: " + what);
}

// Reads `size` bytes a chunk at a time and calls visit(chunk, n) for each. Where nobody knows how
// many there are, memory grows with what has come: a size that is a lie costs nothing. `got`: how
// many there were.
template <class Visit>
Buffer<uint64_t> read_growing(Source& source, uint64_t size, uint64_t& got, Visit visit) {
    const auto room_for = [](uint64_t bytes) {
        return Buffer<uint64_t>(static_cast<size_t>((bytes + 7) / 8));
    };
    Buffer<uint64_t> out =
        room_for(source.left() == Source::kUnknown ? std::min<uint64_t>(size, kChunk)
                                                   : std::min(size, source.left()));
    for (got = 0; got < size;) {
        if (got == out.bytes()) {
            if (source.left() == 0) break;
            Buffer<uint64_t> larger = room_for(std::min<uint64_t>(size, 2 * out.bytes()));
            std::memcpy(larger.data(), out.data(), got);
            out = std::move(larger);
        }
        uint8_t* const at = reinterpret_cast<uint8_t*>(out.data()) + got;
        const size_t want = std::min<uint64_t>({kChunk, size - got, out.bytes() - got});
        const size_t n = source.read(at, want);
        visit(at, n);
        got += n;
        if (n < want) break;
    }
    return out;
}

void check_header(const FileHeader& header, size_t got) {
    if (got < sizeof kMagic || std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
        throw FormatError("this is no index of faiss_dmih: it does not begin with IBDM");
    if (got < sizeof header)
        throw FormatError("the index is truncated: its header has 64 bytes, and there are " +
                          text(got));
    if (header.version != kFormatVersion && header.version != kPartitioned)
        throw FormatError("the index is of version " + text(header.version) +
                          " of the format, expected " + text(kFormatVersion) + " or " +
                          text(kPartitioned) + ": read it with the faiss_dmih that has written it");
    // Nothing that is allocated for the section table is larger than that.
    if (header.n_cuts > kMaxCuts || header.n_sections > kMaxSections)
        throw FormatError("the header of the index is damaged: " + text(header.n_cuts) +
                          " cuts and " + text(header.n_sections) + " sections");
}

Options checked_options(const FileHeader& header, const std::vector<uint32_t>& cuts) {
    check(header.d >= 8 && header.d <= kMaxBits && header.d % 8 == 0,
          "codes of " + text(header.d) + " bits, expected a multiple of 8 in [8, 4096]");
    check(header.mode <= static_cast<uint32_t>(Mode::Scan), "unknown mode " + text(header.mode));
    Options options;
    options.d = static_cast<int>(header.d);
    options.mode = static_cast<Mode>(header.mode);
    if (header.memory_budget != UINT64_MAX) {
        check(options.mode == Mode::Auto, "a memory budget in a mode that has none");
        options.memory_budget = header.memory_budget;
    }
    uint64_t bits = 0;
    for (uint32_t cut : cuts) {
        check(cut >= 1 && cut <= kMaxSubstringBits, "a cut of " + text(cut) + " bits");
        bits += cut;
        options.cuts.push_back(static_cast<int>(cut));
    }
    check(cuts.empty() || bits == header.d,
          "cuts of " + text(bits) + " bits, codes of " + text(header.d));
    return options;
}

void check_sections(const Contents& contents) {
    check(contents.ntotal <= UINT32_MAX, text(contents.ntotal) + " codes, more than 2^32 - 1");
    check(contents.size % kAlignment == 0, text(contents.size) + " bytes, no multiple of 64");
    uint64_t end = contents.header_bytes;
    const SectionEntry* codes = nullptr;
    for (const SectionEntry& section : contents.sections) {
        check(section.offset % kAlignment == 0 && section.offset >= end &&
                  section.offset <= contents.size && section.size <= contents.size - section.offset,
              "a section of " + text(section.size) + " bytes at " + text(section.offset) +
                  ", between " + text(end) + " and " + text(contents.size));
        end = section.offset + section.size;
        if (codes == nullptr && section.tag == tags::kCodes) codes = &section;
    }
    check(codes != nullptr, "there is no section `codes`");
    const uint64_t row = static_cast<uint64_t>(words_for(contents.options.d)) * 8;
    check(codes->size == contents.ntotal * row && codes->segment == 0 && codes->table == 0,
          "`codes` has " + text(codes->size) + " bytes, expected " + text(contents.ntotal * row) +
              " for " + text(contents.ntotal) + " codes of " + text(row));
}

// Distances would count them.
void check_unused_bits(const Contents& contents, const Buffer<uint64_t>& rows) {
    const int used = contents.options.d % 64;
    if (used == 0) return;
    const size_t words = static_cast<size_t>(words_for(contents.options.d));
    uint64_t unused = 0;
    for (size_t last = words - 1; last < rows.size(); last += words) unused |= rows[last] >> used;
    check(unused == 0, "bits of its rows are set beyond the " + text(contents.options.d) + " used");
}

// What a reader has a use for. Rows are made of the codes.
bool is_wanted(const Tag& tag) {
    using namespace tags;
    for (const Tag& wanted : {kCodes, kPartition, kParts, kIds, kLists, kCentres, kRings, kCuts,
                              kOffsets, kSlots, kSigns, kSteps})
        if (tag == wanted) return true;
    return false;
}

// The source's position in the index, from the end of the section table on.
class Walk {
public:
    Walk(const Contents& contents, Source& source)
        : size_(contents.size), source_(source), at_(contents.header_bytes) {}

    // `offset` is ahead.
    void to(uint64_t offset) {
        const uint64_t done = source_.skip(offset - at_);
        if (done < offset - at_) truncated(at_ + done, size_);
        at_ = offset;
    }

    Buffer<uint64_t> read(const SectionEntry& section, uint32_t& crc, const Control& control) {
        to(section.offset);
        uint64_t got = 0;
        crc = 0;
        Buffer<uint64_t> bytes =
            read_growing(source_, section.size, got, [&](const uint8_t* data, size_t n) {
                crc = crc32c(data, n, crc);
                control.poll();
            });
        at_ += got;
        if (got < section.size) truncated(at_, size_);
        return bytes;
    }

private:
    uint64_t size_;
    Source& source_;
    uint64_t at_;
};

}  // namespace

Contents Storage::read_contents(Source& source) {
    const uint64_t there = source.left();
    FileHeader header{};
    check_header(header, source.read(&header, sizeof header));
    const uint64_t cuts_bytes = uint64_t{header.n_cuts} * 4;
    const uint64_t rest = cuts_bytes + uint64_t{header.n_sections} * sizeof(SectionEntry);
    uint32_t crc = crc32c(&header, sizeof header - sizeof header.crc);
    uint64_t got = 0;
    const Buffer<uint64_t> stored = read_growing(
        source, rest, got, [&](const uint8_t* data, size_t n) { crc = crc32c(data, n, crc); });
    if (got < rest) truncated(sizeof header + got, header.size);
    if (crc != header.crc)
        throw FormatError("the header of the index is damaged: its checksum is wrong");
    if (there != Source::kUnknown && there < header.size) truncated(there, header.size);
    check(there == Source::kUnknown || there == header.size,
          "it says that it has " + text(header.size) + " bytes, and there are " + text(there));

    Contents out;
    out.version = header.version;
    out.ntotal = header.ntotal;
    out.size = header.size;
    out.header_bytes = sizeof header + rest;
    check(out.header_bytes <= out.size, "it says that it has " + text(out.size) + " bytes");
    const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(stored.data());
    std::vector<uint32_t> cuts(header.n_cuts);
    if (!cuts.empty()) std::memcpy(cuts.data(), bytes, cuts_bytes);
    out.options = checked_options(header, cuts);
    out.sections.resize(header.n_sections);
    if (!out.sections.empty())
        std::memcpy(out.sections.data(), bytes + cuts_bytes,
                    out.sections.size() * sizeof(SectionEntry));
    check_sections(out);
    return out;
}

uint32_t Storage::read(const Contents& contents, Source& source, Index& index,
                       const Control& control) {
    Pieces pieces;
    Walk walk(contents, source);
    for (const SectionEntry& section : contents.sections) {
        if (!is_wanted(section.tag)) continue;
        uint32_t crc;
        auto bytes = std::make_shared<Buffer<uint64_t>>(walk.read(section, crc, control));
        if (crc == section.crc)
            pieces.put(section, bytes, reinterpret_cast<const uint8_t*>(bytes->data()));
        else if (section.tag == tags::kCodes)
            throw FormatError(
                "the codes of the index are damaged: the checksum of section `codes` is wrong");
    }
    walk.to(contents.size);

    Assembler assembler(contents, pieces, false, control);
    check_unused_bits(contents, assembler.rows(0, contents.ntotal));
    assembler.arrange_bits();
    index.partition_ = assembler.partition();
    const Options options = index.options_;
    // For what has to be built.
    index.options_.memory_budget =
        std::min(options.memory_budget.value_or(UINT64_MAX), kBuildAtMost * contents.size);
    uint64_t next = 0, spent = 0;
    uint32_t built = 0;
    const auto build = [&](uint64_t n) {
        const Buffer<uint64_t> rows = assembler.rows(next, n);
        index.segments_.push_back(
            index.build_of(static_cast<int64_t>(next), Buffer<uint64_t>(rows), spent, control));
        ++built;
    };
    const std::vector<PartEntry> parts = assembler.parts();
    for (uint32_t number = 0; number < parts.size(); ++number) {
        control.poll();
        std::unique_ptr<Segment> segment = assembler.segment(parts[number], number);
        if (segment != nullptr)
            index.segments_.push_back(std::move(segment));
        else
            build(parts[number].n);
        for (const Table& table : index.segments_.back()->tables) spent += table.bytes();
        next += parts[number].n;
    }
    if (contents.ntotal - next > kTail) {
        build(contents.ntotal - next);
        next = contents.ntotal;
    }
    if (assembler.lacks_partition()) built = std::max(built, 1u);
    index.options_ = options;
    index.tail_base_ = next;
    index.tail_size_ = static_cast<uint32_t>(contents.ntotal - next);
    if (index.tail_size_ > 0) {
        const Buffer<uint64_t> rows = assembler.rows(next, index.tail_size_);
        index.tail_ = Buffer<uint64_t>(kTail * static_cast<size_t>(index.words_));
        std::memcpy(index.tail_.data(), rows.data(), rows.bytes());
    }
    return built;
}

uint32_t Storage::map(const Contents& contents, Image image, Index& index) {
    Pieces pieces;
    for (const SectionEntry& section : contents.sections) {
        const uint8_t* const data = image.data + section.offset;
        // Another order of bits would be an order, too: it is short, and is verified.
        if (section.tag == tags::kPartition &&
            (section.size > kLongestPartition || crc32c(data, section.size) != section.crc))
            continue;
        pieces.put(section, image.owner, data);
    }
    const Control alone;
    const Assembler assembler(contents, pieces, true, alone);
    index.partition_ = assembler.partition();
    uint64_t next = 0;
    uint32_t plain = 0;
    const std::vector<PartEntry> parts = assembler.parts();
    for (uint32_t number = 0; number < parts.size(); ++number) {
        std::unique_ptr<Segment> segment = assembler.segment(parts[number], number);
        if (segment == nullptr) {
            segment = assembler.plain(parts[number]);
            ++plain;
        }
        index.segments_.push_back(std::move(segment));
        next += parts[number].n;
    }
    index.tail_base_ = next;
    index.tail_size_ = static_cast<uint32_t>(contents.ntotal - next);
    index.tail_ = assembler.rows(next, index.tail_size_);
    plain += index.tail_size_ > kTail;
    if (assembler.lacks_partition()) plain = std::max(plain, 1u);
    image.rows = assembler.codes();
    index.image_ = std::move(image);
    return plain;
}

uint32_t Storage::copy(const Index& index, Index& out, const Control& control) {
    const Gate::Visit visit(index.gate_, Gate::Visit::kShared, control);
    if (index.mapped()) {
        MemorySource source(index.image_.data, index.image_.size);
        const Contents contents = read_contents(source);
        return read(contents, source, out, control);
    }
    out.partition_ = index.partition_;
    for (const auto& segment : index.segments_) {
        auto copy = std::make_unique<Segment>();
        copy->base = segment->base;
        copy->n = segment->n;
        copy->built_for = segment->built_for;
        copy->slots = segment->slots;
        copy->words = segment->words;
        copy->codes = Buffer<uint64_t>(segment->codes);
        copy->map = IdMap(segment->map);
        copy->clusters = Clusters(segment->clusters);
        copy->tables = std::vector<Table>(segment->tables);
        copy->front = segment->front;
        out.segments_.push_back(std::move(copy));
        control.poll();
    }
    out.tail_ = Buffer<uint64_t>(index.tail_);
    out.tail_base_ = index.tail_base_;
    out.tail_size_ = index.tail_size_;
    return 0;
}

std::vector<bool> Storage::damage(const Contents& contents, Source& source,
                                  const Control& control) {
    std::vector<bool> out;
    std::vector<uint8_t> chunk(kChunk);
    uint64_t at = contents.header_bytes;
    const auto read = [&](uint64_t size, uint32_t* crc) {
        for (uint64_t n; size > 0; size -= n, at += n) {
            n = std::min<uint64_t>(size, kChunk);
            const size_t got = source.read(chunk.data(), n);
            if (got < n) truncated(at + got, contents.size);
            if (crc != nullptr) *crc = crc32c(chunk.data(), n, *crc);
            control.poll();
        }
    };
    for (const SectionEntry& section : contents.sections) {
        uint32_t crc = 0;
        read(section.offset - at, nullptr);
        read(section.size, &crc);
        out.push_back(crc != section.crc);
    }
    return out;
}

}  // namespace dmih
