// The bounded scan's index: codes grouped around centres in Hamming space, within a cluster sorted
// by their distance to its centre.
//
// Triangle inequality: D(q, x) >= |D(q, c) - D(x, c)|. With the running k-th distance tau only the
// members with D(q, c) - tau <= D(x, c) <= D(q, c) + tau can matter: one contiguous range of slots
// per cluster, most of them empty.
//
// Few, large clusters. More centres give tighter ranges, but the fold kernel takes codes by blocks
// of 512, and a block that straddles clusters is needed as soon as one of its pieces is. On codes
// of real images the share of blocks needed is lowest around 4,000 codes per cluster
// (docs/algorithm.md).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "bits.hpp"
#include "buffer.hpp"
#include "parallel.hpp"
#include "slices.hpp"

namespace dmih {

// The part of a block that one cluster holds: D(x, centre) is in [from, to] for its codes.
struct Shell {
    uint32_t centre;
    uint16_t from, to;
};

class Clusters {
public:
    uint32_t size() const { return static_cast<uint32_t>(first_.size()); }
    const uint64_t* centres() const { return centres_.data(); }

    // Slots of the cluster's codes at distances [low, high] from its centre: begin, end.
    std::pair<uint32_t, uint32_t> range(uint32_t centre, int low, int high) const {
        const uint32_t* begin = &rings_[ring_at_[centre]];
        const int last = static_cast<int>(ring_at_[centre + 1] - ring_at_[centre]) - 1;
        const auto at = [&](int distance) {
            const int ring = distance - first_[centre];
            return begin[ring < 0 ? 0 : ring > last ? last : ring];
        };
        return {at(low), at(high + 1)};
    }

    uint32_t codes_of(uint32_t centre) const {
        return rings_[ring_at_[centre + 1] - 1] - begin_of(centre);
    }

    // What the codes of [begin, end) are to the centres, cluster by cluster.
    void shells(uint32_t begin, uint32_t end, std::vector<Shell>& out) const;

    // All codes, cluster by cluster, for searches with a budget.
    const Slices& slices() const { return slices_; }

    size_t bytes() const {
        return centres_.bytes() + rings_.size() * 4 + ring_at_.size() * 4 + first_.size() * 2 +
               slices_.bytes();
    }

    // Groups `slots` codes of `words` words. Writes the order in which they are to be stored:
    // order[new slot] = old slot.
    static Clusters build(const uint64_t* codes, uint32_t slots, int words, const Control& control,
                          Buffer<uint32_t>& order);

    // The slots that are kept, numbered anew: in the same clusters, of which some may be empty.
    Clusters without(const Kept& slots) const;
    // All but the centres, as a file has it: first_, ring_at_ and rings_ one after the other.
    std::vector<uint32_t> rings() const;
    // Out of a file. False, and nothing in `out`: they are no clusters of that many slots.
    static bool from(Buffer<uint64_t> centres, const Buffer<uint32_t>& rings, uint32_t slots,
                     int words, Clusters& out);
    // Whether each of these codes is as far from its centre as its place says.
    bool are_of(const uint64_t* codes, int words) const;

private:
    uint32_t begin_of(uint32_t centre) const { return rings_[ring_at_[centre]]; }
    void cut_into_slices();

    Buffer<uint64_t> centres_;       // rows
    std::vector<uint16_t> first_;    // per cluster: the least distance in it
    std::vector<uint32_t> ring_at_;  // per cluster and one more: its place in rings_
    std::vector<uint32_t> rings_;    // first slot of each distance, and the cluster's end
    Slices slices_;                  // follow from these
};

}  // namespace dmih
