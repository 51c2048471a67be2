// Queries against one block of codes after another: by planes, or by columns where those cost less
// for so many queries.
#pragma once

#include <algorithm>
#include <cstring>

#include "buffer.hpp"
#include "scan_costs.hpp"
#include "simd/kernels.hpp"

namespace dmih {

class BlockKernel {
public:
    // The queries, which outlive it, are called by their numbers.
    BlockKernel(const uint64_t* const* queries, size_t n, int words)
        : kernels_(simd::active()),
          costs_(scan_costs(words)),
          queries_(queries),
          words_(words),
          n_(n),
          block_(row() * simd::kPlanesPerWord * static_cast<size_t>(kernels_.lanes)) {}

    uint32_t codes() const { return 64u * static_cast<uint32_t>(kernels_.lanes); }

    // The next block, for so many queries: of `n` codes that may be read. Of fewer than codes()
    // some zeros follow them.
    void load(const uint64_t* rows, uint32_t n, size_t queries) {
        if (n < codes()) {
            if (last_.empty()) last_ = Buffer<uint64_t>(codes() * row());
            std::memset(last_.data(), 0, last_.bytes());
            std::memcpy(last_.data(), rows, n * row() * 8);
            rows = last_.data();
        }
        by_planes_ = costs_.planes_pay(queries);
        if (by_planes_) {
            if (folded_.empty()) fold_queries();
            kernels_.make_planes(rows, words_, block_.data());
        } else {
            kernels_.make_columns(rows, words_, block_.data());
        }
    }

    // As simd::Kernels::fold.
    int compare(const int32_t* bound, const uint32_t* list, int n, simd::BlockHit* hits) const {
        return by_planes_
                   ? kernels_.fold(block_.data(), words_, folded_.data(), bound, list, n, hits)
                   : kernels_.match(block_.data(), words_, queries_, bound, list, n, hits);
    }

    // Which code of its block a hit's lane and bit are.
    uint32_t code_of(int lane, int bit) const {
        return static_cast<uint32_t>(bit * kernels_.lanes + lane);
    }

private:
    size_t row() const { return static_cast<size_t>(words_); }

    void fold_queries() {
        folded_ = Buffer<simd::FoldWord>(n_ * row());
        for (size_t q = 0; q < n_; ++q)
            kernels_.make_query(queries_[q], words_, folded_.data() + q * row());
    }

    const simd::Kernels& kernels_;
    const ScanCosts& costs_;
    const uint64_t* const* queries_;
    const int words_;
    const size_t n_;
    Buffer<simd::FoldWord> folded_;
    Buffer<uint64_t> block_;  // its planes or columns
    Buffer<uint64_t> last_;   // the rows of one that the codes do not fill
    bool by_planes_ = false;
};

}  // namespace dmih
