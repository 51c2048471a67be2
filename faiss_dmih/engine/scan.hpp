// The scan engine: many queries over the codes of one part. Over clusters only the ranges that the
// triangle inequality leaves (clusters.hpp), elsewhere over everything; by the fastest kernel for
// the number of queries.
#pragma once

#include <vector>

#include "collector.hpp"
#include "parallel.hpp"
#include "part.hpp"

namespace dmih {

// Adds to collectors[i] every code of the part that can still matter to queries[i], and none twice:
// nothing of this part may be in them yet.
template <class Collector>
void scan(const Part& part, const std::vector<const uint64_t*>& queries,
          const std::vector<Collector*>& collectors, const Control& control);

// The share of the part's codes that a scan is expected to look at for a query, of which `found`
// knows the final bound.
template <class Collector>
double expected_share(const Part& part, const uint64_t* query, const Collector& found);

}  // namespace dmih
