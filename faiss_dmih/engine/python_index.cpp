// Plain references throughout: see python_call.hpp.
#include "python_index.hpp"

#include <cstring>
#include <new>

#include "python_call.hpp"

namespace dmih {
namespace {

// Copies an array, whose dtype and shape python_index.py has checked. Python's error may be set.
void copy(PyObject* array, void* out) {
    Py_buffer buffer;
    if (PyObject_GetBuffer(array, &buffer, PyBUF_C_CONTIGUOUS) != 0) return;
    if (buffer.len != 0) std::memcpy(out, buffer.buf, static_cast<size_t>(buffer.len));
    PyBuffer_Release(&buffer);
}

void nothing_to_take(PyObject*) {}

}  // namespace

PyObject* selected(const faiss::IDSelector& selector, faiss::idx_t n) {
    PyObject* const mask = PyByteArray_FromStringAndSize(nullptr, n);
    if (mask == nullptr) return nullptr;
    char* const out = PyByteArray_AS_STRING(mask);
    if (without_gil([&] {
            for (faiss::idx_t id = 0; id < n; ++id) out[id] = selector.is_member(id);
        }))
        return mask;
    Py_DECREF(mask);
    return nullptr;
}

PythonIndex::PythonIndex(faiss::idx_t dim, int64_t key) : faiss::IndexBinary(dim), key_(key) {}

// Calls python_index._call(key, method, arguments()) and take() with what it returns. `arguments`
// makes a tuple; it and `take` may set Python's error instead.
template <class Arguments, class Take>
void PythonIndex::call(const char* method, Arguments arguments, Take take) const {
    const long long key = key_;  // the call may drop the last reference to this index
    in_python([&] {
        PyObject* const module = PyImport_ImportModule("faiss_dmih.python_index");
        PyObject* const packed = module != nullptr ? arguments() : nullptr;
        PyObject* const answer =
            packed != nullptr ? PyObject_CallMethod(module, "_call", "LsO", key, method, packed)
                              : nullptr;
        if (answer != nullptr) try {
                take(answer);
            } catch (const std::bad_alloc&) {
                PyErr_NoMemory();
            }
        Py_XDECREF(answer);
        Py_XDECREF(packed);
        Py_XDECREF(module);
    });
}

PyObject* PythonIndex::codes(faiss::idx_t n, const uint8_t* x) const {
    return read_only_view(x, static_cast<size_t>(n) * static_cast<size_t>(code_size));
}

PyObject* PythonIndex::mask(const faiss::SearchParameters* params) const {
    if (params == nullptr || params->sel == nullptr) Py_RETURN_NONE;
    return selected(*params->sel, ntotal);
}

void PythonIndex::train(faiss::idx_t n, const uint8_t* x) {
    call("train", [&] { return Py_BuildValue("(N)", codes(n, x)); }, nothing_to_take);
}

void PythonIndex::add(faiss::idx_t n, const uint8_t* x) {
    call("add", [&] { return Py_BuildValue("(N)", codes(n, x)); }, nothing_to_take);
}

void PythonIndex::add_with_ids(faiss::idx_t n, const uint8_t* x, const faiss::idx_t* xids) {
    bool done = false;
    call(
        "add_with_ids",
        [&] {
            PyObject* const ids =
                read_only_view(xids, static_cast<size_t>(n) * sizeof(faiss::idx_t));
            return Py_BuildValue("(NN)", codes(n, x), ids);
        },
        [&](PyObject* answer) { done = answer == Py_True; });
    if (!done) faiss::IndexBinary::add_with_ids(n, x, xids);  // FAISS's error
}

void PythonIndex::search(faiss::idx_t n, const uint8_t* x, faiss::idx_t k, int32_t* distances,
                         faiss::idx_t* labels, const faiss::SearchParameters* params) const {
    call(
        "search",
        [&] {
            return Py_BuildValue("(NLN)", codes(n, x), static_cast<long long>(k), mask(params));
        },
        [&](PyObject* answer) {
            copy(PyTuple_GetItem(answer, 0), distances);
            copy(PyTuple_GetItem(answer, 1), labels);
        });
}

void PythonIndex::range_search(faiss::idx_t n, const uint8_t* x, int radius,
                               faiss::RangeSearchResult* result,
                               const faiss::SearchParameters* params) const {
    call(
        "range_search", [&] { return Py_BuildValue("(NiN)", codes(n, x), radius, mask(params)); },
        [&](PyObject* answer) {
            // do_allocation takes the number of answers of each query and leaves their limits.
            copy(PyTuple_GetItem(answer, 0), result->lims);
            result->do_allocation();
            copy(PyTuple_GetItem(answer, 1), result->distances);
            copy(PyTuple_GetItem(answer, 2), result->labels);
        });
}

void PythonIndex::reset() {
    call("reset", [] { return PyTuple_New(0); }, nothing_to_take);
}

size_t PythonIndex::remove_ids(const faiss::IDSelector& selector) {
    size_t removed = 0;
    call(
        "remove_ids", [&] { return Py_BuildValue("(N)", selected(selector, ntotal)); },
        [&](PyObject* answer) { removed = PyLong_AsSize_t(answer); });
    return removed;
}

void PythonIndex::reconstruct(faiss::idx_t key, uint8_t* recons) const {
    reconstruct_n(key, 1, recons);
}

void PythonIndex::reconstruct_n(faiss::idx_t i0, faiss::idx_t ni, uint8_t* recons) const {
    call(
        "reconstruct_n",
        [&] {
            return Py_BuildValue("(LL)", static_cast<long long>(i0), static_cast<long long>(ni));
        },
        [&](PyObject* answer) { copy(answer, recons); });
}

}  // namespace dmih
