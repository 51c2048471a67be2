// A file in its parts, which can be changed one by one and put together again with right offsets
// and checksums: mutations then reach what lies behind the checks of the header.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "crc32c.hpp"
#include "storage/storage.hpp"

namespace fuzz {

using Bytes = std::vector<uint8_t>;

struct Section {
    dmih::SectionEntry entry{};
    Bytes bytes;
};

struct Parts {
    dmih::FileHeader header{};
    std::vector<uint32_t> cuts;
    std::vector<Section> sections;
};

inline size_t aligned(size_t size) {
    return (size + dmih::kAlignment - 1) / dmih::kAlignment * dmih::kAlignment;
}

// Of a sound file.
inline Parts take_apart(const Bytes& image) {
    dmih::MemorySource source(image.data(), image.size());
    const dmih::Contents contents = dmih::Storage::read_contents(source);
    Parts out;
    std::memcpy(&out.header, image.data(), sizeof out.header);
    for (int cut : contents.options.cuts) out.cuts.push_back(static_cast<uint32_t>(cut));
    for (const dmih::SectionEntry& entry : contents.sections)
        out.sections.push_back(
            {entry, Bytes(image.begin() + static_cast<std::ptrdiff_t>(entry.offset),
                          image.begin() + static_cast<std::ptrdiff_t>(entry.offset + entry.size))});
    return out;
}

// The checksum of header and section table, of whatever these now are.
inline void seal(Bytes& image) {
    dmih::FileHeader header;
    if (image.size() < sizeof header) return;
    std::memcpy(&header, image.data(), sizeof header);
    const uint64_t rest =
        uint64_t{header.n_cuts} * 4 + uint64_t{header.n_sections} * sizeof(dmih::SectionEntry);
    if (rest > image.size() - sizeof header) return;
    header.crc = dmih::crc32c(image.data() + sizeof header, rest,
                              dmih::crc32c(&header, sizeof header - sizeof header.crc));
    std::memcpy(image.data(), &header, sizeof header);
}

// `checksums`: of the sections, too; otherwise they stay what they were.
inline Bytes put_together(Parts& parts, bool checksums) {
    size_t at = sizeof(dmih::FileHeader) + parts.cuts.size() * 4 +
                parts.sections.size() * sizeof(dmih::SectionEntry);
    const size_t table = sizeof(dmih::FileHeader) + parts.cuts.size() * 4;
    for (Section& section : parts.sections) {
        at = aligned(at);
        section.entry.offset = at;
        section.entry.size = section.bytes.size();
        if (checksums) section.entry.crc = dmih::crc32c(section.bytes.data(), section.bytes.size());
        at += section.bytes.size();
    }
    parts.header.size = aligned(at);
    parts.header.n_cuts = static_cast<uint32_t>(parts.cuts.size());
    parts.header.n_sections = static_cast<uint32_t>(parts.sections.size());
    Bytes out(parts.header.size, 0);
    std::memcpy(out.data(), &parts.header, sizeof parts.header);
    if (!parts.cuts.empty())
        std::memcpy(out.data() + sizeof parts.header, parts.cuts.data(), parts.cuts.size() * 4);
    for (size_t i = 0; i < parts.sections.size(); ++i) {
        const Section& section = parts.sections[i];
        std::memcpy(out.data() + table + i * sizeof section.entry, &section.entry,
                    sizeof section.entry);
        if (!section.bytes.empty())
            std::memcpy(out.data() + section.entry.offset, section.bytes.data(),
                        section.bytes.size());
    }
    seal(out);
    return out;
}

}  // namespace fuzz
