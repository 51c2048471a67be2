// Indexes as bytes: docs/format.md is the specification.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../index.hpp"
#include "../parallel.hpp"
#include "streams.hpp"

namespace dmih {

// Bytes that are no index, or not whole: what was got, what was expected.
struct FormatError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// Of files without a partition, and of those with one: who knows only the former would search rows
// of the latter by queries whose bits are in another order.
constexpr uint32_t kFormatVersion = 1, kPartitioned = 2;
constexpr size_t kAlignment = 64;
constexpr char kMagic[4] = {'I', 'B', 'D', 'M'};

using Tag = std::array<char, 8>;

constexpr Tag tag_of(const char* name) {
    Tag tag{};
    for (size_t i = 0; i < tag.size() && name[i] != '\0'; ++i) tag[i] = name[i];
    return tag;
}

namespace tags {
constexpr Tag kCodes = tag_of("codes"), kParts = tag_of("parts"), kIds = tag_of("ids"),
              kLists = tag_of("lists"), kRows = tag_of("rows"), kCentres = tag_of("centres"),
              kRings = tag_of("rings"), kCuts = tag_of("cuts"), kOffsets = tag_of("offsets"),
              kSlots = tag_of("slots"), kSigns = tag_of("signs"), kSteps = tag_of("steps"),
              kPartition = tag_of("bits");
}

// The records of a file, as they lie in it.
struct FileHeader {
    char magic[4];
    uint32_t version;
    uint64_t size, ntotal;
    uint32_t d, mode;
    uint64_t memory_budget;
    uint32_t n_cuts, n_sections;
    uint8_t zero[12];
    uint32_t crc;
};
static_assert(sizeof(FileHeader) == 64);

struct SectionEntry {
    Tag tag;
    uint32_t segment, table;
    uint64_t offset, size;
    uint32_t crc, zero;
};
static_assert(sizeof(SectionEntry) == 40);

struct PartEntry {
    uint64_t base;
    uint32_t n, slots, tables, has;
};
static_assert(sizeof(PartEntry) == 24);

// What a segment has, in PartEntry::has.
enum Has : uint32_t { kHasIds = 1, kHasLists = 2, kHasClusters = 4, kHasSigns = 8 };

struct StepEntry {
    uint32_t table, radius;
};
static_assert(sizeof(StepEntry) == 8);

// Header and section table, whose checksum was right.
struct Contents {
    uint32_t version = 0;
    Options options;
    uint64_t ntotal = 0, size = 0;
    std::vector<SectionEntry> sections;
    uint64_t header_bytes = 0;  // of both
};

class Storage {
public:
    // Size of the index as bytes.
    static uint64_t size_of(const Index& index, const Control& control);
    static void write(const Index& index, Sink& sink, const Control& control);

    // Raises FormatError. The source then stands behind the section table.
    static Contents read_contents(Source& source);
    // The rest, into an index that is empty and has been made with the options of `contents`.
    // Returns how many segments had to be built anew; at least one where the partition is lost.
    static uint32_t read(const Contents& contents, Source& source, Index& index,
                         const Control& control);
    // The same without reading: `image` is all of it, and is kept by the index. Returns how many
    // segments lack something, and are scanned; at least one where the partition is lost.
    static uint32_t map(const Contents& contents, Image image, Index& index);

    // A copy in memory, into an index that is empty and has been made with the same options.
    // Returns what read() does.
    static uint32_t copy(const Index& index, Index& out, const Control& control);

    // Which sections are damaged.
    static std::vector<bool> damage(const Contents& contents, Source& source,
                                    const Control& control);
};

}  // namespace dmih
