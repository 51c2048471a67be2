// The scan engine: many queries over all codes of one part, by the fastest kernel for their number.
#pragma once

#include <vector>

#include "collector.hpp"
#include "parallel.hpp"
#include "part.hpp"

namespace dmih {

// Nanoseconds on this machine with the active kernels; measured at the first question for a width.
struct ScanCosts {
    double row;     // one code, one query, row kernel
    double planes;  // one block's planes
    double fold;    // one block, one query
    int block;      // codes per block

    // Of one query in a batch of `queries`, the kernel being the better of the two.
    double per_code(size_t queries, int threads) const;
};

const ScanCosts& scan_costs(int words);

// Adds to collectors[i] every code of the part that can still matter to queries[i].
template <class Collector>
void scan(const Part& part, const std::vector<const uint64_t*>& queries, const Filter* filter,
          const std::vector<Collector*>& collectors, const Control& control);

}  // namespace dmih
