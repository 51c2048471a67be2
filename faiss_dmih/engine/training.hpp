// What IndexDMIH::train learns, in Python: faiss_dmih/partition.py.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "index.hpp"
#include "partition.hpp"

namespace dmih {

// A partition for codes like these n of d bits, learned by the default strategy of the mode; null:
// bits are best left as they are. `cuts`: so many substrings, or if they are `fixed` of just these
// lengths. `size`: of the index to be. Throws FaissException with what Python has raised.
std::shared_ptr<const Partition> learned_partition(int64_t n, const uint8_t* codes, int d,
                                                   uint64_t size, const std::vector<int>& cuts,
                                                   bool fixed, Mode mode);

}  // namespace dmih
