#include "tables.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dmih {

std::vector<int> default_cuts(int d, uint64_t n) {
    const double log2n = std::log2(static_cast<double>(std::max<uint64_t>(n, 2)));
    int m = std::max(1, static_cast<int>(std::floor(d / log2n)));
    auto fits = [&](int tables) {
        const int longest = (d + tables - 1) / tables;
        if (longest > kMaxSubstringBits) return false;
        double offsets = 0;
        for (int j = 0; j < tables; ++j)
            offsets += 4.0 * std::exp2(d / tables + (j < d % tables ? 1 : 0));
        return offsets <= std::max(8.0 * static_cast<double>(n) * tables, 1048576.0);
    };
    while (m < d && !fits(m)) ++m;
    return even_cuts(d, m);
}

std::vector<int> even_cuts(int d, int m) {
    std::vector<int> cuts(static_cast<size_t>(m), d / m);
    for (int j = 0; j < d % m; ++j) ++cuts[static_cast<size_t>(j)];
    return cuts;
}

std::vector<Substring> substrings_of(const std::vector<int>& cuts) {
    std::vector<Substring> out;
    int begin = 0;
    for (int bits : cuts) {
        out.push_back({begin, bits});
        begin += bits;
    }
    return out;
}

size_t table_bytes(const Substring& substring, uint32_t slots, bool signatures) {
    const size_t entry = signatures ? 2 * sizeof(uint32_t) : sizeof(uint32_t);
    return ((size_t{1} << substring.bits) + 1) * sizeof(uint32_t) + slots * entry;
}

Substring signature_of(const Substring& substring, int d) {
    const int end = substring.begin + substring.bits;
    const int after = std::min(kSignatureBits, d - end);
    const int before = std::min(kSignatureBits, substring.begin);
    return after >= before ? Substring{end, after} : Substring{substring.begin - before, before};
}

std::vector<Table> build_tables(const std::vector<Substring>& substrings, bool signatures, int d,
                                const uint64_t* codes, uint32_t slots, const Control& control) {
    const int words = words_for(d);
    std::vector<Table> tables(substrings.size());
    for (size_t j = 0; j < tables.size(); ++j) {
        Table& table = tables[j];
        table.substring = substrings[j];
        table.signature = signature_of(substrings[j], d);
        table.slots = Buffer<uint32_t>(slots);
        if (signatures && table.signature.bits > 0) table.signatures = Buffer<uint32_t>(slots);
    }
    parallel_for(control, tables.size(), [&](size_t j) {
        // A counting sort by key. The counts stand one place to the right of their key's begin, so
        // that filling the buckets turns them into the offsets themselves.
        Table& table = tables[j];
        Buffer<uint32_t> offsets((size_t{1} << table.substring.bits) + 1);
        std::memset(offsets.data(), 0, offsets.bytes());
        const auto each_code = [&](const auto& visit) {
            for (uint32_t s = 0; s < slots; ++s) {
                control.poll(s);
                const uint64_t* code = codes + size_t(s) * words;
                visit(table.substring.of(code), s, code);
            }
        };
        each_code([&](uint32_t key, uint32_t, const uint64_t*) { ++offsets[key + 1]; });
        uint32_t begin = 0;
        for (size_t key = 1; key <= size_t{1} << table.substring.bits; ++key) {
            const uint32_t count = offsets[key];
            offsets[key] = begin;
            begin += count;
        }
        const bool signing = !table.signatures.empty();
        each_code([&](uint32_t key, uint32_t s, const uint64_t* code) {
            const uint32_t at = offsets[key + 1]++;
            table.slots[at] = s;
            if (signing) table.signatures[at] = table.signature.of(code);
        });
        table.offsets = Offsets(std::move(offsets));
        table.offsets.pack();
    });
    return tables;
}

}  // namespace dmih
