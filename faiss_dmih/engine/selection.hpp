// What a faiss::IDSelector selects. FAISS's own kinds are read, whole sets at a time; others are
// asked about one id after another.
#pragma once

#include <atomic>

#include "faiss_abi.hpp"
#include "index.hpp"

namespace dmih {

// On the calling thread only: a selector may be written in Python.
Selection select(const faiss::IDSelector& selector, const State& state, const Control& control);

// Whether it is better asked about the few ids that a search meets than made a set of all n: that
// would take longer than `queries` searches; it may be asked from any thread; and it selects so
// many ids that few have to be met.
bool better_asked(const faiss::IDSelector& selector, uint64_t n, uint64_t queries);

// Asks a selector, but not much more often than would have made it a set.
class AskedSelector : public Filter::Asked {
public:
    struct TooOften : std::exception {};

    AskedSelector(const faiss::IDSelector& selector, uint64_t n)
        : selector_(selector), left_(static_cast<int64_t>(n / 4)) {}
    bool contains(int64_t id) const override {
        if (left_.fetch_sub(1, std::memory_order_relaxed) <= 0) throw TooOften();
        return selector_.is_member(id);
    }

private:
    const faiss::IDSelector& selector_;
    mutable std::atomic<int64_t> left_;
};

}  // namespace dmih
