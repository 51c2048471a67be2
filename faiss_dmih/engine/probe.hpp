// The probe engine: multi-index hashing over one segment's tables, by its front.
#pragma once

#include "collector.hpp"
#include "parallel.hpp"
#include "part.hpp"

namespace dmih {

// What a scan instead would cost, in the front's items; the planner's side of the bargain.
struct ProbeLimits {
    double scan = 1e300;  // give up once finishing by probing is expected to cost more
    double look = 1e300;  // though not before this much was spent to find out
};

// Adds to `collector` every code of the part that can still matter to it. False: given up, some of
// them may be missing; what was found is true.
template <class Collector>
bool probe(const Part& part, const uint64_t* query, const Filter* filter, const ProbeLimits& limits,
           Collector& collector, const Control& control);

}  // namespace dmih
