// What a mapped file says is checked where it is used (mapped.hpp): nobody has read it before.
#pragma once

#include <stdexcept>

namespace dmih {

[[noreturn, gnu::cold, gnu::noinline]] inline void damaged() {
    throw std::runtime_error(
        "the file that this index is mapped from is damaged: an offset or an id in it is out of "
        "bounds (`faiss-dmih verify FILE` says where; read in full, it is repaired if it can be)");
}

}  // namespace dmih
