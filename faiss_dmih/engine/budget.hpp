// Searches that may visit only so many codes for a query. Part by part, the largest first (so
// recent codes last); in each a few buckets of the tables, then slices of the clusters, likely ones
// first (slices.hpp). What is visited does not depend on the budget, only where it ends: the more,
// the better the answer. Nor on time or on other queries.
#pragma once

#include <vector>

#include "parallel.hpp"
#include "part.hpp"

namespace dmih {

template <class Collector>
void search_within(const std::vector<Part>& parts, const std::vector<const uint64_t*>& queries,
                   uint64_t max_codes, std::vector<Collector>& collectors, const Control& control);

}  // namespace dmih
