#include "selection.hpp"

namespace dmih {

Selection select(const faiss::IDSelector& selector, const State& state, const Control& control) {
    Selection out{Bits(state.size), 0, state.version};
    for (uint64_t id = 0; id < state.size; ++id) {
        if (id % 4096 == 0) control.poll();
        if (selector.is_member(static_cast<faiss::idx_t>(id))) out.ids.set(id);
    }
    out.count = out.ids.count();
    return out;
}

}  // namespace dmih
