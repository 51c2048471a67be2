#include "clusters.hpp"

#include <algorithm>
#include <cstring>

#include "hamming.hpp"
#include "simd/kernels.hpp"

namespace dmih {
namespace {

constexpr uint32_t kCodesPerCluster = 4096;
constexpr uint32_t kMaxCentres = 4096;
constexpr uint32_t kSamplePerCentre = 64;
constexpr int kRounds = 3;

// The nearest centre of each code, by the fold kernel: centres are the block, codes the queries.
class Assigner {
public:
    Assigner(const uint64_t* centres, uint32_t count, int words)
        : kernels_(simd::active()),
          words_(words),
          block_(64u * static_cast<uint32_t>(kernels_.lanes)),
          blocks_((count + block_ - 1) / block_),
          plane_words_(static_cast<size_t>(words) * simd::kPlanesPerWord *
                       static_cast<size_t>(kernels_.lanes)),
          planes_(plane_words_ * blocks_),
          valid_(size_t{blocks_} * static_cast<size_t>(kernels_.lanes), 0) {
        Buffer<uint64_t> rows(size_t{block_} * static_cast<size_t>(words));
        for (uint32_t b = 0; b < blocks_; ++b) {
            const uint32_t n = std::min(block_, count - b * block_);
            std::memset(rows.data(), 0, rows.bytes());
            std::copy_n(centres + size_t{b} * block_ * words, size_t{n} * words, rows.data());
            kernels_.make_planes(rows.data(), words, planes_.data() + b * plane_words_);
            const uint32_t lanes = static_cast<uint32_t>(kernels_.lanes);
            for (uint32_t i = 0; i < n; ++i)
                valid_[b * lanes + i % lanes] |= uint64_t{1} << (i / lanes);
        }
    }

    void operator()(const uint64_t* codes, uint32_t n, uint32_t* centre, uint16_t* distance) const {
        constexpr uint32_t kAtOnce = 64;
        Buffer<simd::FoldWord> folded(size_t{kAtOnce} * static_cast<size_t>(words_));
        uint16_t h[kAtOnce], place[kAtOnce];
        for (uint32_t at = 0; at < n; at += kAtOnce) {
            const uint32_t some = std::min(kAtOnce, n - at);
            for (uint32_t i = 0; i < some; ++i)
                kernels_.make_query(codes + size_t{at + i} * words_, words_,
                                    folded.data() + size_t{i} * words_);
            for (uint32_t b = 0; b < blocks_; ++b) {
                kernels_.nearest(planes_.data() + b * plane_words_, words_, folded.data(),
                                 static_cast<int>(some), &valid_[size_t{b} * kernels_.lanes], h,
                                 place);
                for (uint32_t i = 0; i < some; ++i) {
                    if (b > 0 && h[i] >= distance[at + i]) continue;
                    distance[at + i] = h[i];
                    centre[at + i] = b * block_ + place[i];
                }
            }
        }
    }

private:
    const simd::Kernels& kernels_;
    int words_;
    uint32_t block_, blocks_;
    size_t plane_words_;
    Buffer<uint64_t> planes_;
    std::vector<uint64_t> valid_;
};

void assign(const Assigner& assigner, const uint64_t* codes, uint32_t n, int words,
            uint32_t* centre, uint16_t* distance, const Control& control) {
    constexpr uint32_t kChunk = 4096;
    parallel_for(control, (size_t{n} + kChunk - 1) / kChunk, [&](size_t c) {
        const size_t at = c * kChunk;
        const uint32_t some = static_cast<uint32_t>(std::min<size_t>(kChunk, n - at));
        assigner(codes + at * words, some, centre + at, distance + at);
    });
}

// k-majority, the k-means of Hamming space: each bit of a centre is the majority of its members'.
void move_centres(const uint64_t* codes, const uint32_t* centre, uint32_t n, int words,
                  uint32_t count, uint64_t* centres, const Control& control) {
    const size_t bits = static_cast<size_t>(words) * 64;
    std::vector<uint32_t> ones(count * bits, 0), members(count, 0);
    for (uint32_t i = 0; i < n; ++i) {
        if (i % 1024 == 0) control.poll();
        uint32_t* row = &ones[centre[i] * bits];
        ++members[centre[i]];
        for (int w = 0; w < words; ++w)
            for (uint64_t left = codes[size_t{i} * words + w]; left != 0; left &= left - 1)
                ++row[w * 64 + __builtin_ctzll(left)];
    }
    for (uint32_t c = 0; c < count; ++c) {
        if (members[c] == 0) continue;  // keeps its place
        for (int w = 0; w < words; ++w) {
            uint64_t word = 0;
            for (int b = 0; b < 64; ++b)
                if (2 * ones[c * bits + w * 64 + b] > members[c]) word |= uint64_t{1} << b;
            centres[size_t{c} * words + w] = word;
        }
    }
}

}  // namespace

Clusters Clusters::build(const uint64_t* codes, uint32_t slots, int words, const Control& control,
                         Buffer<uint32_t>& order) {
    const uint32_t count = std::clamp(slots / kCodesPerCluster, 1u, kMaxCentres);
    const size_t row = static_cast<size_t>(words);
    Clusters out;
    out.centres_ = Buffer<uint64_t>(count * row);
    Buffer<uint32_t> centre(slots);
    Buffer<uint16_t> distance(slots);

    // The sample is spread evenly over the codes; its first codes at each stride are the first
    // centres. Nothing is random: the same codes give the same clusters.
    const uint32_t sampled = std::min(slots, count * kSamplePerCentre);
    Buffer<uint64_t> sample(sampled * row);
    for (uint32_t i = 0; i < sampled; ++i)
        std::copy_n(codes + uint64_t{i} * slots / sampled * row, row, sample.data() + i * row);
    for (uint32_t c = 0; c < count; ++c)
        std::copy_n(sample.data() + uint64_t{c} * sampled / count * row, row,
                    out.centres_.data() + c * row);
    for (int round = 0; round < kRounds; ++round) {
        const Assigner assigner(out.centres_.data(), count, words);
        assign(assigner, sample.data(), sampled, words, centre.data(), distance.data(), control);
        move_centres(sample.data(), centre.data(), sampled, words, count, out.centres_.data(),
                     control);
    }
    const Assigner assigner(out.centres_.data(), count, words);
    assign(assigner, codes, slots, words, centre.data(), distance.data(), control);

    // Counting sort by (cluster, distance): a histogram per cluster over its distances.
    const size_t width = row * 64 + 2;
    std::vector<uint32_t> place(count * width, 0);
    for (uint32_t i = 0; i < slots; ++i) {
        control.poll(i);
        ++place[centre[i] * width + distance[i]];
    }
    uint32_t begin = 0;
    for (uint32_t c = 0; c < count; ++c) {
        uint32_t* ring = &place[c * width];
        size_t first = 0, last = width - 1;
        while (first < last && ring[first] == 0) ++first;
        while (last > first && ring[last - 1] == 0) --last;
        out.first_.push_back(static_cast<uint16_t>(first));
        out.ring_at_.push_back(static_cast<uint32_t>(out.rings_.size()));
        for (size_t h = first; h < last; ++h) {
            out.rings_.push_back(begin);
            begin += std::exchange(ring[h], begin);
        }
        out.rings_.push_back(begin);
    }
    out.ring_at_.push_back(static_cast<uint32_t>(out.rings_.size()));
    order = Buffer<uint32_t>(slots);
    for (uint32_t i = 0; i < slots; ++i) {
        control.poll(i);
        order[place[centre[i] * width + distance[i]]++] = i;
    }
    out.cut_into_slices();
    return out;
}

std::vector<uint32_t> Clusters::rings() const {
    std::vector<uint32_t> out(first_.begin(), first_.end());
    out.insert(out.end(), ring_at_.begin(), ring_at_.end());
    out.insert(out.end(), rings_.begin(), rings_.end());
    return out;
}

bool Clusters::from(Buffer<uint64_t> centres, const Buffer<uint32_t>& rings, uint32_t slots,
                    int words, Clusters& out) {
    const size_t count = centres.size() / static_cast<size_t>(words);
    if (count == 0 || count > kMaxCentres || centres.size() % static_cast<size_t>(words) != 0 ||
        rings.size() < 2 * count + 1)
        return false;
    const uint32_t* const at = rings.data() + count;
    const uint32_t* const begin = at + count + 1;
    const uint32_t* const end = rings.data() + rings.size();
    // Each cluster has rings, the last of them its end; together they are all slots.
    if (at[0] != 0 || at[count] != end - begin) return false;
    for (size_t c = 0; c < count; ++c) {
        if (at[c + 1] <= at[c] || at[c + 1] > at[count]) return false;
        const uint64_t longest = static_cast<uint64_t>(words) * 64 + 2;
        if (rings[c] > longest || at[c + 1] - at[c] > longest - rings[c]) return false;
        if (begin[at[c]] != (c == 0 ? 0 : begin[at[c] - 1])) return false;
    }
    if (!std::is_sorted(begin, end) || end[-1] != slots) return false;
    out.centres_ = std::move(centres);
    out.first_.assign(rings.data(), at);
    out.ring_at_.assign(at, begin);
    out.rings_.assign(begin, end);
    out.cut_into_slices();
    return true;
}

void Clusters::cut_into_slices() {
    const int words = static_cast<int>(centres_.size() / size());
    slices_ = {};
    for (uint32_t c = 0; c < size(); ++c) {
        const uint32_t* const ring = &rings_[ring_at_[c]];
        const uint32_t* const stop = &rings_[ring_at_[c + 1] - 1];
        const auto distance_of = [&](uint32_t slot) {
            return static_cast<uint16_t>(first_[c] + (std::upper_bound(ring, stop, slot) - ring) -
                                         1);
        };
        slices_.add(*ring, *stop);
        for (uint32_t p = slices_.first[c]; p < slices_.first[c + 1]; ++p) {
            Slice& slice = slices_.all[p];
            slice.from = distance_of(slice.begin);
            slice.to = distance_of(slice.end - 1);
            const uint32_t middle = slice.begin + (slice.end - slice.begin) / 2;
            slice.middle = static_cast<uint16_t>(on_grid(distance_of(middle), words));
            slices_.widest = std::max(slices_.widest, slice.middle);
        }
    }
}

bool Clusters::are_of(const uint64_t* codes, int words) const {
    const size_t row = static_cast<size_t>(words);
    for (uint32_t c = 0; c < size(); ++c) {
        const uint64_t* const centre = centres_.data() + c * row;
        int distance = first_[c];
        for (uint32_t r = ring_at_[c]; r + 1 < ring_at_[c + 1]; ++r, ++distance)
            for (uint32_t slot = rings_[r]; slot < rings_[r + 1]; ++slot)
                if (hamming(codes + slot * row, centre, words) != distance) return false;
    }
    return true;
}

void Clusters::shells(uint32_t begin, uint32_t end, std::vector<Shell>& out) const {
    // The last cluster that begins at or before `begin`; empty clusters hold nothing.
    uint32_t c = 0, beyond = size();
    while (beyond - c > 1) {
        const uint32_t middle = c + (beyond - c) / 2;
        (begin_of(middle) <= begin ? c : beyond) = middle;
    }
    for (; c < size() && begin_of(c) < end; ++c) {
        const uint32_t* ring = &rings_[ring_at_[c]];
        const uint32_t* stop = &rings_[ring_at_[c + 1] - 1];
        const uint32_t low = std::max(begin, *ring), high = std::min(end, *stop);
        if (low >= high) continue;
        const auto distance_of = [&](uint32_t slot) {
            return static_cast<uint16_t>(first_[c] + (std::upper_bound(ring, stop, slot) - ring) -
                                         1);
        };
        out.push_back({c, distance_of(low), distance_of(high - 1)});
    }
}

}  // namespace dmih
