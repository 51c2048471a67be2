// What the scan kernels cost on this machine: measured, not assumed.
#pragma once

#include <algorithm>
#include <cstddef>

namespace dmih {

// Nanoseconds, with the active kernels.
struct ScanCosts {
    double row;             // one code, one query, row kernel
    double planes;          // making one block's planes
    double fold;            // one block, one query
    double columns, match;  // the same by columns; columns are never made where there is no kernel
    int block;              // codes per block

    // For so many queries it is cheaper to turn a block into planes or columns than to read its
    // rows for each.
    bool blocks_pay(size_t queries) const {
        const double nq = static_cast<double>(queries);
        return of_block(queries) < nq * row * block;
    }
    // And of the two into planes.
    bool planes_pay(size_t queries) const {
        const double nq = static_cast<double>(queries);
        return planes + nq * fold <= columns + nq * match;
    }
    double of_block(size_t queries) const {
        const double nq = static_cast<double>(queries);
        return std::min(planes + nq * fold, columns + nq * match);
    }
    // Of that, what all queries of a large batch share.
    double shared(size_t queries) const { return planes_pay(queries) ? planes : columns; }
    // Per code, for one query in a batch of `queries`, with the better kernel.
    double per_code(size_t queries, int threads) const;
};

// Measured at the first question for a code length and instruction set: 18 turns of at least 10
// microseconds, longer for long codes.
const ScanCosts& scan_costs(int words);

// The kernels beside what bounds them, for benchmarks. Nanoseconds, one thread.
struct KernelSpeeds {
    double fold, fold_limit;  // one block, one query; the adders alone
    double planes;            // making one block's planes
    double columns, match;    // the same by columns; 1e300: no such kernel
    double row, row_limit;    // one code of many, one query; reading it
    int block;                // codes per block
};

KernelSpeeds kernel_speeds(int words);

}  // namespace dmih
