// What the scan kernels cost on this machine: measured, not assumed.
#pragma once

#include <cstddef>

namespace dmih {

// Nanoseconds, with the active kernels.
struct ScanCosts {
    double row;     // one code, one query, row kernel
    double planes;  // making one block's planes
    double fold;    // one block, one query
    int block;      // codes per block

    // Folding a block over so many queries is cheaper than reading its rows for each.
    bool folding_pays(size_t queries) const {
        const double nq = static_cast<double>(queries);
        return planes + nq * fold < nq * row * block;
    }
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
    double row, row_limit;    // one code of many, one query; reading it
    int block;                // codes per block
};

KernelSpeeds kernel_speeds(int words);

}  // namespace dmih
