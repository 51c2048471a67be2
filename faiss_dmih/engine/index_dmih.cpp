#include "index_dmih.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <new>
#include <string>

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

struct SelectorFilter : Filter {
    explicit SelectorFilter(const faiss::IDSelector& selector) : selector_(selector) {}
    bool contains(int64_t id) const override { return selector_.is_member(id); }
    const faiss::IDSelector& selector_;
};

// Calls search(filter) with the filter that the parameters ask for, or none.
template <class Search>
void with_filter(const faiss::SearchParameters* params, Search search) {
    if (params == nullptr || params->sel == nullptr) return search(nullptr);
    const SelectorFilter filter(*params->sel);
    search(&filter);
}

}  // namespace

Control faiss_control() {
    return Control(faiss_threads(), faiss::InterruptCallback::check);
}

IndexDMIH::IndexDMIH(Options options)
    : faiss::IndexBinary(options.d), engine_(std::move(options)) {}

void IndexDMIH::train(faiss::idx_t, const uint8_t*) {}  // nothing to learn: always trained

void IndexDMIH::add(faiss::idx_t n, const uint8_t* x) {
    guarded([&] {
        engine_.add(static_cast<uint64_t>(n), x, faiss_control());
        ntotal = static_cast<faiss::idx_t>(engine_.size());
    });
}

void IndexDMIH::search(faiss::idx_t n, const uint8_t* x, faiss::idx_t k, int32_t* distances,
                       faiss::idx_t* labels, const faiss::SearchParameters* params) const {
    guarded([&] {
        if (k <= 0) throw faiss::FaissException("k must be at least 1, got " + std::to_string(k));
        with_filter(params, [&](const Filter* filter) {
            engine_.search(static_cast<uint64_t>(n), x, k, distances, labels, filter,
                           faiss_control());
        });
    });
}

void IndexDMIH::range_search(faiss::idx_t n, const uint8_t* x, int radius,
                             faiss::RangeSearchResult* result,
                             const faiss::SearchParameters* params) const {
    guarded([&] {
        with_filter(params, [&](const Filter* filter) {
            const RangeResults found =
                engine_.range_search(static_cast<uint64_t>(n), x, radius, filter, faiss_control());
            // do_allocation takes the number of answers of each query and leaves their limits.
            for (faiss::idx_t i = 0; i < n; ++i)
                result->lims[i] = found.lims[i + 1] - found.lims[i];
            result->do_allocation();
            std::copy(found.ids.begin(), found.ids.end(), result->labels);
            std::copy(found.distances.begin(), found.distances.end(), result->distances);
        });
    });
}

void IndexDMIH::reset() {
    guarded([&] { engine_.reset(); });
    ntotal = 0;
}

void IndexDMIH::compact() {
    guarded([&] { engine_.compact(faiss_control()); });
}

void IndexDMIH::check_ids(faiss::idx_t first, faiss::idx_t n) const {
    if (first < 0 || n < 0 || first > ntotal || n > ntotal - first)
        throw faiss::FaissException("ids [" + std::to_string(first) + ", " +
                                    std::to_string(first + n) +
                                    ") are not in [0, ntotal = " + std::to_string(ntotal) + ")");
}

void IndexDMIH::reconstruct(faiss::idx_t key, uint8_t* recons) const {
    reconstruct_n(key, 1, recons);
}

void IndexDMIH::reconstruct_n(faiss::idx_t i0, faiss::idx_t ni, uint8_t* recons) const {
    check_ids(i0, ni);
    for (faiss::idx_t i = 0; i < ni; ++i, recons += code_size) engine_.reconstruct(i0 + i, recons);
}

}  // namespace dmih
