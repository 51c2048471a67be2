#include "filtered.hpp"

#include <algorithm>
#include <cstring>

#include "index.hpp"
#include "scan_costs.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

constexpr uint64_t kCounted = 16;  // queries for which counting the ids of every slot pays

// Nanoseconds that pass until a query has been compared with so many codes, one of a batch.
double scan_ns(double codes, const ScanCosts& costs, uint64_t queries, int threads) {
    const double all = static_cast<double>(std::max(threads, 1));
    const double share = std::min(static_cast<double>(queries), all);
    return codes * costs.per_code(queries, threads) / share;
}

// What a filtered query is expected to cost if the part is searched as it is.
double in_place_ns(const Part& part, const ScanCosts& costs, uint64_t queries, int threads,
                   const Workload& workload) {
    const double scanned = scan_ns(part.slots, costs, queries, threads);
    if (part.segment == nullptr || (part.segment->tables.empty() && part.clusters() == nullptr))
        return scanned;
    // For want of experience: tables and clusters are there to rule most of it out.
    constexpr double kHoped = 1.0 / 8;
    const double known = part.segment->experiences->at(costs, queries, workload.of(part.share))
                             .filtered_ns.load(std::memory_order_relaxed);
    // One bad experience, as in a pause of the machine, is not believed for ever.
    constexpr double kMost = 2;
    return known > 0 ? std::min(known, kMost * scanned) : kHoped * scanned;
}

// The codes of a part's `ids` selected ids in one place. No tables: it is scanned. `rows`, if it is
// not null, are the codes of all ids: a mapped segment does not say which slot an id has.
std::unique_ptr<Segment> gather(const Part& part, const Bits& selected, uint32_t ids,
                                const uint64_t* rows, const Partition* partition,
                                const Control& control) {
    auto out = std::make_unique<Segment>();
    out->base = part.base;
    out->n = part.ids();  // ids stay what they are in the part
    out->slots = out->map.slots = ids;
    out->words = part.words;
    out->map.ids = Buffer<uint32_t>(ids);
    const uint64_t base = static_cast<uint64_t>(part.base);
    uint32_t n = 0;
    selected.each(base, base + part.ids(),
                  [&](uint64_t id) { out->map.ids[n++] = static_cast<uint32_t>(id - base); });
    const size_t words = static_cast<size_t>(part.words);
    out->codes = Buffer<uint64_t>(ids * words);
    constexpr uint32_t kChunk = 8192;
    parallel_for(control, (uint64_t{ids} + kChunk - 1) / kChunk, [&](size_t c) {
        const uint32_t end = static_cast<uint32_t>(std::min<uint64_t>((c + 1) * kChunk, ids));
        for (uint32_t i = static_cast<uint32_t>(c) * kChunk; i < end; ++i) {
            const uint32_t id = out->map.ids[i];
            const uint64_t* code =
                rows != nullptr
                    ? rows + (base + id) * words
                    : part.code(part.segment == nullptr ? id : part.segment->slot_of(id));
            uint64_t* const row = out->codes.data() + i * words;
            if (rows != nullptr && partition != nullptr)
                partition->to_row(reinterpret_cast<const uint8_t*>(code), row);
            else
                std::copy_n(code, words, row);
        }
    });
    return out;
}

Buffer<uint32_t> count_ids(const Part& part, const Control& control) {
    Buffer<uint32_t> out(part.slots);
    std::memset(out.data(), 0, out.bytes());
    for (uint32_t slot = 0; slot < part.slots; ++slot) {
        control.poll(slot);
        part.for_each_id(slot, [&](int64_t) { return ++out[slot] > 0; });
    }
    return out;
}

// Of a selector that is asked, by some of the part's ids.
double guessed_share(const Part& part, const Filter& filter) {
    constexpr uint32_t kSample = 64;
    double selected = 0.5;
    for (uint32_t i = 0; i < kSample; ++i)
        selected += filter.contains(part.base + uint64_t{i} * part.ids() / kSample);
    return selected / (kSample + 1);
}

}  // namespace

FilteredParts Index::filtered(const Filter* filter, uint64_t queries, const Workload& workload,
                              bool repeatable, const Control& control) const {
    FilteredParts out;
    if (filter == nullptr) {
        out.parts = parts();
        return out;
    }
    const Timed timed(stats().select_ns);
    if (filter->ids != nullptr && filter->version != version_) throw Outdated();
    const ScanCosts& costs = scan_costs(words_);
    const int threads = control.threads();
    for (Part& part : parts()) {
        part.number = static_cast<uint32_t>(out.parts.size());
        part.filter = filter;
        if (filter->ids == nullptr) {
            part.share = guessed_share(part, *filter);
            out.parts.push_back(part);
            continue;
        }
        const uint64_t base = static_cast<uint64_t>(part.base);
        const uint64_t ids = filter->ids->count(base, base + part.ids());
        if (ids == 0) continue;
        if (ids == part.ids()) {
            part.filter = nullptr;
            out.parts.push_back(part);
            continue;
        }
        part.share = static_cast<double>(ids) / part.ids();
        constexpr double kGather = 8;  // nanoseconds for a code: a miss or two, overlapping
        const double asked = static_cast<double>(std::max<uint64_t>(queries, 1));
        const double gathered = kGather * static_cast<double>(ids) / asked +
                                scan_ns(static_cast<double>(ids), costs, queries, threads);
        constexpr uint64_t kFew = 8;
        if (repeatable ? ids <= part.ids() / kFew
                       : gathered < in_place_ns(part, costs, queries, threads, workload)) {
            out.gathered.push_back(gather(part, *filter->ids, static_cast<uint32_t>(ids),
                                          image_.rows, partition_.get(), control));
            const Segment& own = *out.gathered.back();
            out.parts.push_back({part.number, own.base, own.slots, words_, own.codes.data(), &own});
        } else {
            if (!part.ids_ascend() && part.slots < part.ids() && queries >= kCounted) {
                out.counts.push_back(count_ids(part, control));
                part.counts = out.counts.back().data();
            }
            out.parts.push_back(part);
        }
    }
    return out;
}

void learn_filtered(const Part& part, size_t queries, const Workload& workload, double ns) {
    Planner::learn_filtered(
        part.segment->experiences->at(scan_costs(part.words), queries, workload.of(part.share)),
        ns / static_cast<double>(queries));
}

}  // namespace dmih
