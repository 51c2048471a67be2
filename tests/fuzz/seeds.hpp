// Small sound files of every shape: a tail, tables, equal codes, several segments, clusters.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "image.hpp"

namespace fuzz {

class BytesSink : public dmih::Sink {
public:
    void write(const void* data, size_t size) override {
        const uint8_t* from = static_cast<const uint8_t*>(data);
        bytes.insert(bytes.end(), from, from + size);
    }
    Bytes bytes;
};

inline Bytes written(const dmih::Index& index) {
    BytesSink sink;
    dmih::Storage::write(index, sink, dmih::Control());
    return sink.bytes;
}

struct Shape {
    int d, n, later;  // `later` codes are in the tail
    dmih::Mode mode;
    std::vector<int> cuts;
    int distinct;
    bool trained = false;
};

inline Bytes codes_of(const Shape& shape, std::mt19937& random) {
    const size_t width = static_cast<size_t>(shape.d) / 8;
    const size_t n = static_cast<size_t>(shape.n + shape.later);
    Bytes pool(static_cast<size_t>(shape.distinct) * width), out(n * width);
    for (uint8_t& byte : pool) byte = static_cast<uint8_t>(random());
    for (size_t i = 0; i < n; ++i)
        std::memcpy(&out[i * width], &pool[random() % pool.size() / width * width], width);
    return out;
}

inline Bytes seed_of(const Shape& shape, std::mt19937& random) {
    dmih::Options options;
    options.d = shape.d;
    options.mode = shape.mode;
    options.cuts = shape.cuts;
    dmih::Index index(options);
    const Bytes codes = codes_of(shape, random);
    const size_t first = static_cast<size_t>(shape.n) * static_cast<size_t>(shape.d) / 8;
    index.add(static_cast<uint64_t>(shape.n), codes.data(), dmih::Control());
    index.compact(dmih::Control());
    if (shape.trained) {
        std::vector<int> order(static_cast<size_t>(shape.d));
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), random);
        const std::vector<int> cuts = index.cuts_for(static_cast<uint64_t>(shape.n));
        index.repartition(std::make_shared<const dmih::Partition>(order, cuts), dmih::Control());
        index.compact(dmih::Control());  // what fits a tail has become one
    }
    index.add(static_cast<uint64_t>(shape.later), codes.data() + first, dmih::Control());
    return written(index);
}

template <class T>
Section section_of(dmih::Tag tag, uint32_t segment, const T* data, size_t count) {
    Section out;
    out.entry.tag = tag;
    out.entry.segment = segment;
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(data);
    out.bytes.assign(bytes, bytes + count * sizeof(T));
    return out;
}

// Two segments, the first with clusters, which growth makes of thousands of codes only: by hand.
inline Bytes seed_with_clusters(std::mt19937& random) {
    const Shape shape{64, 60, 0, dmih::Mode::Scan, {}, 1 << 16};
    const Bytes codes = codes_of(shape, random);
    const uint32_t n = 40;
    dmih::Buffer<uint64_t> rows(60);
    std::memcpy(rows.data(), codes.data(), codes.size());
    dmih::Buffer<uint32_t> order;
    const dmih::Clusters clusters =
        dmih::Clusters::build(rows.data(), n, 1, dmih::Control(), order);
    std::vector<uint64_t> arranged;
    for (uint32_t slot = 0; slot < n; ++slot) arranged.push_back(rows[order[slot]]);
    const std::vector<uint32_t> rings = clusters.rings();
    const dmih::PartEntry entries[2] = {{0, n, n, 0, dmih::kHasIds | dmih::kHasClusters},
                                        {n, 15, 15, 0, 0}};

    Parts parts = take_apart(seed_of(shape, random));
    parts.header.mode = static_cast<uint32_t>(dmih::Mode::Auto);
    parts.sections.clear();
    parts.sections.push_back(section_of(dmih::tags::kCodes, 0, rows.data(), 60));
    parts.sections.push_back(section_of(dmih::tags::kParts, 0, entries, 2));
    parts.sections.push_back(section_of(dmih::tags::kIds, 0, order.data(), n));
    parts.sections.push_back(section_of(dmih::tags::kRows, 0, arranged.data(), n));
    parts.sections.push_back(
        section_of(dmih::tags::kCentres, 0, clusters.centres(), clusters.size()));
    parts.sections.push_back(section_of(dmih::tags::kRings, 0, rings.data(), rings.size()));
    return put_together(parts, true);
}

inline std::vector<std::pair<std::string, Bytes>> make_seeds() {
    std::mt19937 random(1);
    using dmih::Mode;
    std::vector<std::pair<std::string, Bytes>> out;
    const auto add = [&](const char* name, const Shape& shape) {
        out.emplace_back(name, seed_of(shape, random));
    };
    add("empty", {64, 0, 0, Mode::Auto, {}, 1});
    add("tail", {72, 0, 9, Mode::Auto, {}, 9});
    add("tables", {16, 50, 3, Mode::Auto, {4, 4, 5, 3}, 1 << 16});
    add("equal", {16, 60, 0, Mode::Auto, {6, 5, 5}, 7});
    add("wide", {136, 30, 2, Mode::Auto, std::vector<int>(17, 8), 20});
    add("mih", {24, 40, 1, Mode::Mih, {8, 8, 8}, 1 << 16});
    add("scan", {40, 50, 5, Mode::Scan, {}, 40});
    out.emplace_back("clusters", seed_with_clusters(random));
    add("trained", {16, 60, 2, Mode::Auto, {6, 5, 5}, 40, true});
    add("trained-mih", {72, 30, 1, Mode::Mih, std::vector<int>(9, 8), 1 << 16, true});
    return out;
}

}  // namespace fuzz
