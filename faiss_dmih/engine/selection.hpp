// What a faiss::IDSelector selects, asked for all ids of an index at once.
#pragma once

#include "faiss_abi.hpp"
#include "index.hpp"

namespace dmih {

// On the calling thread: a selector may be written in Python.
Selection select(const faiss::IDSelector& selector, const State& state, const Control& control);

}  // namespace dmih
