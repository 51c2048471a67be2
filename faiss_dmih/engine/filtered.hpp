// The parts of an index as a search sees them that may answer some ids only.
#pragma once

#include <memory>
#include <vector>

#include "part.hpp"
#include "planner.hpp"

namespace dmih {

// Without a filter, the parts themselves. Otherwise parts of which nothing may be answered are left
// out, and where little may be, its codes are gathered: to scan these costs less than to look for
// them among all. `repeatable`: by what is selected alone, not by what searches have cost.
struct FilteredParts {
    std::vector<Part> parts;
    std::vector<std::unique_ptr<Segment>> gathered;
    std::vector<Buffer<uint32_t>> counts;
};

// Searching a filtered part took so long for all queries.
void learn_filtered(const Part& part, size_t queries, const Workload& workload, double ns);

}  // namespace dmih
