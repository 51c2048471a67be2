// A faiss::IndexBinary that is written in Python: faiss_dmih/python_index.py has the Python side.
#pragma once

#include <Python.h>

#include "faiss_abi.hpp"

namespace dmih {

// Forwards FAISS's virtual functions to the Python object that is registered under `key`. It holds
// no reference to that object: the object owns this index, and FAISS's composites keep a reference
// to the object. What Python raises arrives as a FaissException, "TypeName: text". On a thread that
// Python knows, the error also stays set, and FAISS's wrapper then leaves it as it is.
class PythonIndex : public faiss::IndexBinary {
public:
    PythonIndex(faiss::idx_t d, int64_t key);

    void train(faiss::idx_t n, const uint8_t* x) override;
    void add(faiss::idx_t n, const uint8_t* x) override;
    void add_with_ids(faiss::idx_t n, const uint8_t* x, const faiss::idx_t* xids) override;
    void search(faiss::idx_t n, const uint8_t* x, faiss::idx_t k, int32_t* distances,
                faiss::idx_t* labels, const faiss::SearchParameters* params) const override;
    void range_search(faiss::idx_t n, const uint8_t* x, int radius,
                      faiss::RangeSearchResult* result,
                      const faiss::SearchParameters* params) const override;
    void reset() override;
    size_t remove_ids(const faiss::IDSelector& selector) override;
    void reconstruct(faiss::idx_t key, uint8_t* recons) const override;
    void reconstruct_n(faiss::idx_t i0, faiss::idx_t ni, uint8_t* recons) const override;

private:
    template <class Arguments, class Take>
    void call(const char* method, Arguments arguments, Take take) const;
    PyObject* codes(faiss::idx_t n, const uint8_t* x) const;
    PyObject* mask(const faiss::SearchParameters* params) const;

    const int64_t key_;
};

// Which of the ids 0 to n - 1 are selected: a bytearray of 0 and 1, or null and Python's error.
// To be called with Python's lock, which it gives up.
PyObject* selected(const faiss::IDSelector& selector, faiss::idx_t n);

}  // namespace dmih
