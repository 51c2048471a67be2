#include "index_dmih.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <new>
#include <string>

#include "selection.hpp"
#include "stats.hpp"
#include "training.hpp"

namespace dmih {
namespace {

// FAISS's wrappers catch FaissException and bad_alloc; anything else would end the process.
template <class Work>
auto guarded(Work work) -> decltype(work()) {
    try {
        return work();
    } catch (const faiss::FaissException&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw faiss::FaissException(error.what());
    }
}

// The wheels bring an OpenMP runtime of their own; faiss.omp_set_num_threads speaks to that one.
// Looked up when the module is loaded, which is after libfaiss.so.
int (*const omp_get_max_threads)() = [] {
    void* faiss = dlopen("libfaiss.so", RTLD_NOLOAD | RTLD_LAZY);
    void* symbol = faiss != nullptr ? dlsym(faiss, "omp_get_max_threads") : nullptr;
    return reinterpret_cast<int (*)()>(symbol);
}();

int faiss_threads() {
    return omp_get_max_threads != nullptr ? std::max(omp_get_max_threads(), 1) : 1;
}

uint64_t max_codes_of(const faiss::SearchParameters* params) {
    const auto* own = dynamic_cast<const SearchParametersDMIH*>(params);
    return own != nullptr && own->max_codes > 0 ? static_cast<uint64_t>(own->max_codes) : 0;
}

// Calls search(filter) with the filter that the parameters ask for, or none. A selector may use the
// index, and change it. It is asked a second time, when nobody can change the index, if somebody
// has done so after the first.
template <class Search>
void with_filter(const Index& index, faiss::idx_t queries, const faiss::SearchParameters* params,
                 const Control& control, Search search) {
    if (params == nullptr || params->sel == nullptr) return search(nullptr);
    const faiss::IDSelector& selector = *params->sel;
    const State state = index.state(control);
    // A search that is begun again would visit more codes than it may.
    if (max_codes_of(params) == 0 &&
        better_asked(selector, state.size, static_cast<uint64_t>(queries))) {
        const AskedSelector asked(selector, state.size);
        Filter filter;
        filter.asked = &asked;
        try {
            return search(&filter);
        } catch (const AskedSelector::TooOften&) {
        }
    }
    const auto search_selected = [&](const State& now) {
        const Selection selection = [&] {
            const Timed timed(stats().select_ns);
            return select(selector, now, control);
        }();
        const Filter filter{&selection.ids, nullptr, selection.version};
        search(&filter);
    };
    try {
        return search_selected(state);
    } catch (const Index::Outdated&) {
    }
    const Gate::Visit held = index.hold(control);
    search_selected(index.state(control));
}

}  // namespace

Control faiss_control() {
    return Control(faiss_threads(), faiss::InterruptCallback::check);
}

IndexDMIH::IndexDMIH(Options options) : faiss::IndexBinary(options.d), engine_(std::move(options)) {
    engine_.report_size_to(&ntotal);
}

void IndexDMIH::train(faiss::idx_t n, const uint8_t* x) {
    const Options& options = engine_.options();
    if (n <= 0 || options.mode == Mode::Scan) return;
    guarded([&] {
        engine_.check_may_change();  // learning takes a while
        const uint64_t size =
            std::max(engine_.state(faiss_control()).size, static_cast<uint64_t>(n));
        repartition(learned_partition(n, x, d, size, engine_.cuts_for(size), !options.cuts.empty(),
                                      options.mode));
    });
}

void IndexDMIH::add(faiss::idx_t n, const uint8_t* x) {
    guarded([&] { engine_.add(static_cast<uint64_t>(n), x, faiss_control()); });
}

void IndexDMIH::search(faiss::idx_t n, const uint8_t* x, faiss::idx_t k, int32_t* distances,
                       faiss::idx_t* labels, const faiss::SearchParameters* params) const {
    search_and_reconstruct(n, x, k, distances, labels, nullptr, params);
}

void IndexDMIH::search_and_reconstruct(faiss::idx_t n, const uint8_t* x, faiss::idx_t k,
                                       int32_t* distances, faiss::idx_t* labels, uint8_t* recons,
                                       const faiss::SearchParameters* params) const {
    guarded([&] {
        if (k <= 0) throw faiss::FaissException("k must be at least 1, got " + std::to_string(k));
        const Control own = faiss_control();
        with_filter(engine_, n, params, own, [&](const Filter* filter) {
            engine_.search(static_cast<uint64_t>(n), x, k, distances, labels, filter, own,
                           max_codes_of(params), recons);
        });
    });
}

void IndexDMIH::range_search(faiss::idx_t n, const uint8_t* x, int radius,
                             faiss::RangeSearchResult* result,
                             const faiss::SearchParameters* params) const {
    guarded([&] {
        const Control own = faiss_control();
        RangeResults found;
        with_filter(engine_, n, params, own, [&](const Filter* filter) {
            found = engine_.range_search(static_cast<uint64_t>(n), x, radius, filter, own,
                                         max_codes_of(params));
        });
        // do_allocation takes the number of answers of each query and leaves their limits.
        for (faiss::idx_t i = 0; i < n; ++i) result->lims[i] = found.lims[i + 1] - found.lims[i];
        result->do_allocation();
        std::copy(found.ids.begin(), found.ids.end(), result->labels);
        std::copy(found.distances.begin(), found.distances.end(), result->distances);
    });
}

void IndexDMIH::reset() {
    guarded([&] { engine_.reset(faiss_control()); });
}

size_t IndexDMIH::remove_ids(const faiss::IDSelector& sel) {
    return guarded([&] {
        const Control own = faiss_control();
        return engine_.remove([&](const State& state) { return select(sel, state, own); }, own);
    });
}

void IndexDMIH::compact() {
    guarded([&] { engine_.compact(faiss_control()); });
}

void IndexDMIH::reconstruct(faiss::idx_t key, uint8_t* recons) const {
    reconstruct_batch(1, &key, recons);
}

void IndexDMIH::reconstruct_batch(faiss::idx_t n, const faiss::idx_t* keys, uint8_t* recons) const {
    guarded([&] { engine_.reconstruct(static_cast<uint64_t>(n), keys, recons, faiss_control()); });
}

void IndexDMIH::reconstruct_n(faiss::idx_t i0, faiss::idx_t ni, uint8_t* recons) const {
    guarded([&] { engine_.reconstruct_n(i0, ni, recons, faiss_control()); });
}

void IndexDMIH::check_compatible_for_merge(const faiss::IndexBinary& other) const {
    if (dynamic_cast<const IndexDMIH*>(&other) == nullptr)
        throw faiss::FaissException(
            "only an IndexDMIH can be merged into an IndexDMIH: add the codes of others, "
            "index.add(other.reconstruct_n())");
    if (&other == this) throw faiss::FaissException("an index cannot be merged into itself");
    if (other.d != d)
        throw faiss::FaissException("cannot merge codes of " + std::to_string(other.d) +
                                    " bits into an index of " + std::to_string(d) + " bits");
}

void IndexDMIH::merge_from(faiss::IndexBinary& other, faiss::idx_t add_id) {
    check_compatible_for_merge(other);
    if (add_id != 0)
        throw faiss::FaissException(
            "ids are consecutive, they cannot be moved by add_id = " + std::to_string(add_id) +
            ": put the index into an IndexBinaryIDMap");
    guarded([&] { engine_.merge(dynamic_cast<IndexDMIH&>(other).engine_, faiss_control()); });
}

void IndexDMIH::add_sa_codes(faiss::idx_t n, const uint8_t* x, const faiss::idx_t* xids) {
    if (xids != nullptr) return add_with_ids(n, x, xids);  // which FAISS refuses
    add(n, x);
}

MemoryUsage IndexDMIH::memory_usage() const {
    return engine_.memory_usage(faiss_control());
}

std::vector<int> IndexDMIH::cuts() const {
    return engine_.cuts_in_use(faiss_control());
}

std::shared_ptr<const Partition> IndexDMIH::partition() const {
    return engine_.partition(faiss_control());
}

void IndexDMIH::repartition(std::shared_ptr<const Partition> partition) {
    guarded([&] { engine_.repartition(std::move(partition), faiss_control()); });
}

}  // namespace dmih
