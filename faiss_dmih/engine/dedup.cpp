#include "dedup.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace dmih {
namespace {

uint64_t hash(const uint64_t* code, int words) {
    uint64_t h = 0;
    for (int w = 0; w < words; ++w) {
        h = (h ^ code[w]) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 32;
    }
    return h * 0xD6E8FEB86659FD93ull;
}

// One worker's share of the codes, told by their hash: an open-addressing set of first ids.
class FirstIds {
public:
    explicit FirstIds(size_t codes) {
        size_t size = 64;
        while (size < codes + codes / 2) size *= 2;
        entries_ = Buffer<Entry>(size);
        std::memset(static_cast<void*>(entries_.data()), 0xFF, entries_.bytes());
        mask_ = size - 1;
    }

    void prefetch(uint64_t h) const { __builtin_prefetch(&entries_[h & mask_], 1); }

    // The first id seen with this code; `id` itself when it is new.
    uint32_t insert(uint64_t h, uint32_t id, const uint64_t* codes, int words) {
        const uint32_t tag = static_cast<uint32_t>(h >> 32);
        const uint64_t* code = codes + size_t(id) * words;
        for (size_t i = h & mask_;; i = (i + 1) & mask_) {
            Entry& e = entries_[i];
            if (e.id == kNone) {
                e = {id, tag};
                return id;
            }
            if (e.tag == tag &&
                std::memcmp(codes + size_t(e.id) * words, code, size_t(words) * 8) == 0)
                return e.id;
        }
    }

private:
    static constexpr uint32_t kNone = 0xFFFFFFFF;
    struct Entry {
        uint32_t id, tag;
    };
    Buffer<Entry> entries_;
    size_t mask_;
};

}  // namespace

IdMap find_distinct(const uint64_t* codes, uint32_t n, int words, const Control& control) {
    // Each worker takes the codes whose hash falls to it, in id order, so that the outcome does not
    // depend on their number.
    const uint32_t workers = n < 50000 ? 1 : std::clamp(control.threads(), 1, 16);
    auto worker_of = [workers](uint64_t h) {
        return static_cast<uint32_t>(((h >> 40) & 0xFFFF) * workers >> 16);
    };
    Buffer<uint64_t> hashes(n);
    constexpr uint32_t kChunk = 1 << 16;
    const uint32_t chunks = static_cast<uint32_t>((uint64_t{n} + kChunk - 1) / kChunk);
    std::vector<std::vector<uint32_t>> shares(chunks, std::vector<uint32_t>(workers, 0));
    parallel_for(control, chunks, [&](size_t c) {
        const uint32_t end = static_cast<uint32_t>(std::min<uint64_t>((c + 1) * kChunk, n));
        for (uint32_t i = static_cast<uint32_t>(c) * kChunk; i < end; ++i) {
            hashes[i] = hash(codes + size_t(i) * words, words);
            ++shares[c][worker_of(hashes[i])];
        }
    });

    Buffer<uint32_t> first(n);
    std::vector<uint32_t> fresh(workers, 0);
    parallel_for(control, workers, [&](size_t worker) {
        size_t share = 0;
        for (const auto& counts : shares) share += counts[worker];
        FirstIds set(share);
        constexpr uint32_t kAhead = 16;  // lookups in flight
        uint32_t distinct = 0;
        for (uint32_t i = 0; i < n; ++i) {
            control.poll(i);
            if (i + kAhead < n && worker_of(hashes[i + kAhead]) == worker)
                set.prefetch(hashes[i + kAhead]);
            if (worker_of(hashes[i]) != worker) continue;
            first[i] = set.insert(hashes[i], i, codes, words);
            distinct += first[i] == i;
        }
        fresh[worker] = distinct;
    });

    IdMap out;
    for (uint32_t count : fresh) out.slots += count;
    // Lists cost more than they save where few codes are equal.
    constexpr uint32_t kFew = 64;
    if (n - out.slots <= n / kFew) {
        out.slots = n;
        return out;
    }

    Buffer<uint32_t> slot_of(n);
    out.list_begin = Buffer<uint32_t>(size_t(out.slots) + 1);
    out.ids = Buffer<uint32_t>(n);
    std::memset(out.list_begin.data(), 0, out.list_begin.bytes());
    uint32_t next = 0;
    for (uint32_t i = 0; i < n; ++i) {
        control.poll(i);
        slot_of[i] = first[i] == i ? next++ : slot_of[first[i]];
        ++out.list_begin[slot_of[i] + 1];
    }
    for (uint32_t s = 0; s < out.slots; ++s) out.list_begin[s + 1] += out.list_begin[s];
    Buffer<uint32_t>& at = first;  // no longer needed as such: now the next free place by slot
    std::memcpy(at.data(), out.list_begin.data(), size_t(out.slots) * 4);
    for (uint32_t i = 0; i < n; ++i) {
        control.poll(i);
        out.ids[at[slot_of[i]]++] = i;
    }
    return out;
}

Buffer<uint32_t> slots_by_id(const IdMap& map, uint32_t n, const Control& control) {
    if (map.ids.empty()) return {};
    Buffer<uint32_t> out(n);
    for (uint32_t slot = 0; slot < map.slots; ++slot) {
        control.poll(slot);
        const auto [begin, end] = map.list(slot);
        for (uint32_t i = begin; i < end; ++i) out[map.ids[i]] = slot;
    }
    return out;
}

IdMap reorder(const IdMap& map, const Buffer<uint32_t>& order, uint32_t n, const Control& control) {
    IdMap out;
    out.slots = map.slots;
    out.ids = Buffer<uint32_t>(n);
    if (!map.list_begin.empty()) out.list_begin = Buffer<uint32_t>(size_t(map.slots) + 1);
    uint32_t at = 0;
    for (uint32_t slot = 0; slot < map.slots; ++slot) {
        control.poll(slot);
        if (!out.list_begin.empty()) out.list_begin[slot] = at;
        const uint32_t end = map.begin_of(order[slot] + 1);
        for (uint32_t i = map.begin_of(order[slot]); i < end; ++i)
            out.ids[at++] = map.ids.empty() ? i : map.ids[i];
    }
    if (!out.list_begin.empty()) out.list_begin[map.slots] = at;
    return out;
}

}  // namespace dmih
