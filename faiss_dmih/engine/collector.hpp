// What a query has found so far, and the bound that follows from it.
//
// Found codes are kept as (distance, part, slot): a part is one run of the index's ids (a segment
// or the tail) and a slot one distinct code in it, which may stand for many ids. Ids are told apart
// only at the end, and only as many as are asked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace dmih {

struct Found {
    uint64_t key;  // distance, part, slot from the top: 16, 16 and 32 bits

    Found(int distance, uint32_t part, uint32_t slot)
        : key(static_cast<uint64_t>(distance) << 48 | static_cast<uint64_t>(part) << 32 | slot) {}
    int distance() const { return static_cast<int>(key >> 48); }
    uint32_t part() const { return static_cast<uint32_t>(key >> 32) & 0xFFFF; }
    uint32_t slot() const { return static_cast<uint32_t>(key); }
};

// The k nearest. A histogram of the distances found gives the running k-th distance: no heap, any
// k, and codes tied at that distance are all kept, so that the smallest ids can win at the end.
class KnnCollector {
public:
    static constexpr bool kLearns = true;  // the bound falls as codes are found

    // `histogram` has d + 1 zeros and outlives the collector. One memory for all queries of a batch
    // saves as many allocations.
    KnnCollector(int64_t k, int d, uint32_t* histogram)
        : histogram_(histogram), k_(static_cast<uint64_t>(k)), bound_(d), d_(d) {}

    // Codes farther than this cannot be among the answers.
    int bound() const { return bound_; }
    // Something is known of the bound, though perhaps not by the codes added.
    bool bounded() const { return bound_ < d_; }
    // At least k codes within the bound have been added.
    bool full() const { return within_ >= k_; }
    // The same for codes whose ids are above all those found: they lose every tie.
    int bound_for_later_ids() const { return full() ? bound_ - 1 : bound_; }

    // `count` ids of the slot may be answered (more than one when equal codes share it).
    void add(int distance, uint32_t part, uint32_t slot, uint64_t count) {
        if (distance > bound_) return;
        if (found_.capacity() == 0) found_.reserve(std::clamp(k_, kFirstFound, kMostAtFirst));
        found_.emplace_back(distance, part, slot);
        histogram_[distance] += static_cast<uint32_t>(count);
        within_ += count;
        while (bound_ > 0 && within_ - histogram_[bound_] >= k_) within_ -= histogram_[bound_--];
        if (found_.size() >= prune_at_) prune();
    }

    // The caller knows of k codes within it, which are going to be added.
    void lower_bound_to(int bound) {
        for (; bound_ > bound; --bound_) within_ -= histogram_[bound_];
    }

    void prefetch() const {
        __builtin_prefetch(&histogram_[bound_]);
        __builtin_prefetch(found_.data() + found_.size(), 1);
    }

    uint64_t k() const { return k_; }

    // For a thread of its own: the same bound, nothing found.
    KnnCollector empty_copy() const {
        auto histogram = std::make_unique<uint32_t[]>(static_cast<size_t>(d_) + 1);
        KnnCollector copy(static_cast<int64_t>(k_), d_, histogram.get());
        copy.own_ = std::move(histogram);
        copy.bound_ = bound_;
        return copy;
    }

    // Takes back what was found in a part that is going to be searched again from the start. The
    // bound stays: it was true.
    template <class Count>
    void forget(uint32_t part, Count count) {
        auto gone = [&](const Found& f) {
            if (f.part() != part || f.distance() > bound_) return f.part() == part;
            const uint64_t ids = count(f.slot());
            histogram_[f.distance()] -= static_cast<uint32_t>(ids);
            within_ -= ids;
            return true;
        };
        found_.erase(std::remove_if(found_.begin(), found_.end(), gone), found_.end());
    }

    const std::vector<Found>& found() {
        prune();
        return found_;
    }

private:
    static constexpr uint64_t kFirstFound = 16, kMostAtFirst = 1024;

    void prune() {
        auto far = [this](const Found& f) { return f.distance() > bound_; };
        found_.erase(std::remove_if(found_.begin(), found_.end(), far), found_.end());
        prune_at_ = std::max<size_t>(2 * found_.size(), 256);
    }

    uint32_t* histogram_;
    std::vector<Found> found_;
    uint64_t k_;
    uint64_t within_ = 0;  // ids found at distances <= bound_
    size_t prune_at_ = 256;
    int bound_, d_;
    std::unique_ptr<uint32_t[]> own_;
};

// Everything within a fixed distance.
class RangeCollector {
public:
    static constexpr bool kLearns = false;

    explicit RangeCollector(int bound) : bound_(bound) {}

    RangeCollector empty_copy() const { return RangeCollector(bound_); }

    int bound() const { return bound_; }
    bool bounded() const { return true; }
    uint64_t k() const { return 0; }
    void lower_bound_to(int) {}
    void prefetch() const { __builtin_prefetch(found_.data() + found_.size(), 1); }
    bool full() const { return true; }
    int bound_for_later_ids() const { return bound_; }
    void add(int distance, uint32_t part, uint32_t slot, uint64_t) {
        if (distance <= bound_) found_.emplace_back(distance, part, slot);
    }
    template <class Count>
    void forget(uint32_t part, Count) {
        auto gone = [&](const Found& f) { return f.part() == part; };
        found_.erase(std::remove_if(found_.begin(), found_.end(), gone), found_.end());
    }
    const std::vector<Found>& found() const { return found_; }

private:
    int bound_;
    std::vector<Found> found_;
};

}  // namespace dmih
