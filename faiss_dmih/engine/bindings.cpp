// The Python module faiss_dmih._engine. An IndexDMIH crosses over as the kind of object FAISS's own
// Python layer works with: a SWIG pointer to faiss::IndexBinary, made with SWIG's external runtime.
// The module must be imported after faiss (faiss_dmih/__init__.py sees to it).
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#define SWIG_PYTHON_THREADS
#include "swigpyrun.h"

#include <chrono>

#include "gil.hpp"
#include "index_dmih.hpp"
#include "python_index.hpp"
#include "scan_costs.hpp"
#include "simd/kernels.hpp"
#include "stats.hpp"
#include "storage/python.hpp"

namespace nb = nanobind;
using dmih::index_of;
using dmih::IndexDMIH;
using dmih::PythonIndex;
using dmih::without_gil;

namespace {

// Asked for once, when the module is loaded: SWIG searches thousands of names.
struct SwigTypes {
    swig_type_info *index_binary, *id_selector, *search_parameters;
} swig;

swig_type_info* swig_type(const std::string& name) {
    if (swig_type_info* const type = SWIG_TypeQuery((name + " *").c_str())) return type;
    throw nb::import_error(("FAISS's Python module does not tell SWIG about " + name).c_str());
}

nb::object make(int d, const std::string& mode, std::vector<int> cuts,
                std::optional<uint64_t> memory_budget) {
    dmih::Options options;
    options.d = d;
    options.mode = mode == "mih"    ? dmih::Mode::Mih
                   : mode == "scan" ? dmih::Mode::Scan
                                    : dmih::Mode::Auto;
    options.cuts = std::move(cuts);
    options.memory_budget = memory_budget;
    return nb::steal(dmih::to_python(new IndexDMIH(std::move(options))));
}

IndexDMIH& of(nb::handle object) {
    IndexDMIH* index = index_of(object.ptr());
    if (index == nullptr) throw nb::python_error();
    return *index;
}

// A C-contiguous matrix in host memory by Python's buffer protocol, which for NumPy's arrays takes
// a tenth of the time that DLPack does. Released by hand: see without_gil.
struct Matrix {
    Py_buffer view;
    bool held, fits;

    Matrix(PyObject* object, char format, int flags) {
        held = PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) == 0;
        if (!held) PyErr_Clear();
        fits = held && view.ndim == 2 && view.format[0] == format && view.format[1] == '\0';
    }
    void release() {
        if (held) PyBuffer_Release(&view);
    }
};

// search(index, x, k, D, I): the common case of IndexBinary.search, without the conversions of
// FAISS's Python layer, which take longer than a lone query. D and I are (n, k) int32 and int64.
// False: `x` is something that FAISS's layer has to look at first.
PyObject* search(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "expected index, x, k, D, I");
        return nullptr;
    }
    IndexDMIH* index = index_of(args[0]);
    const int64_t k = PyLong_AsLongLong(args[2]);
    if (index == nullptr || PyErr_Occurred() != nullptr) return nullptr;
    Matrix x(args[1], 'B', 0), D(args[3], 'i', PyBUF_WRITABLE), I(args[4], 'l', PyBUF_WRITABLE);
    const bool fits = x.fits && D.fits && I.fits && x.view.shape[1] == index->code_size;
    const bool done = !fits || without_gil([&] {
        index->search(x.view.shape[0], static_cast<const uint8_t*>(x.view.buf), k,
                      static_cast<int32_t*>(D.view.buf), static_cast<int64_t*>(I.view.buf),
                      nullptr);
    });
    x.release();
    D.release();
    I.release();
    return done ? PyBool_FromLong(fits) : nullptr;
}

PyObject* compact(PyObject*, PyObject* object) {
    IndexDMIH* index = index_of(object);
    if (index == nullptr || !without_gil([&] { index->compact(); })) return nullptr;
    Py_RETURN_NONE;
}

// add_singly(index, x): adds the codes one by one; the seconds that it took, without Python's
// share. For benchmarks.
PyObject* add_singly(PyObject*, PyObject* args) {
    PyObject *object, *codes;
    if (!PyArg_ParseTuple(args, "OO", &object, &codes)) return nullptr;
    IndexDMIH* index = index_of(object);
    if (index == nullptr) return nullptr;
    Matrix x(codes, 'B', 0);
    const bool fits = x.fits && x.view.shape[1] == index->code_size;
    if (!fits) PyErr_SetString(PyExc_ValueError, "expected codes (n, code_size)");
    const auto start = std::chrono::steady_clock::now();
    const bool done =
        fits && without_gil([&] {
            for (Py_ssize_t i = 0; i < x.view.shape[0]; ++i)
                index->add(1, static_cast<const uint8_t*>(x.view.buf) + i * index->code_size);
        });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    x.release();
    return done ? PyFloat_FromDouble(taken.count()) : nullptr;
}

// memory_usage(index): bytes by part.
PyObject* memory_usage(PyObject*, PyObject* object) {
    IndexDMIH* index = index_of(object);
    dmih::MemoryUsage usage;
    if (index == nullptr || !without_gil([&] { usage = index->memory_usage(); })) return nullptr;
    const uint64_t total = usage.codes + usage.ids + usage.clusters + usage.tables + usage.tail;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}", "codes", usage.codes, "ids", usage.ids,
                         "clusters", usage.clusters, "tables", usage.tables, "tail", usage.tail,
                         "total", total);
}

PyObject* tuple_of(const std::vector<int>& values) {
    PyObject* const out = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
    for (size_t i = 0; out != nullptr && i < values.size(); ++i)
        PyTuple_SET_ITEM(out, static_cast<Py_ssize_t>(i), PyLong_FromLong(values[i]));
    return out;
}

// cuts(index): a tuple of substring lengths.
PyObject* cuts(PyObject*, PyObject* object) {
    IndexDMIH* index = index_of(object);
    std::vector<int> lengths;
    if (index == nullptr || !without_gil([&] { lengths = index->cuts(); })) return nullptr;
    return tuple_of(lengths);
}

// partition(index): (order, cuts), or None.
PyObject* partition(PyObject*, PyObject* object) {
    IndexDMIH* index = index_of(object);
    std::shared_ptr<const dmih::Partition> found;
    if (index == nullptr || !without_gil([&] { found = index->partition(); })) return nullptr;
    if (found == nullptr) Py_RETURN_NONE;
    return Py_BuildValue("(NN)", tuple_of(found->order()), tuple_of(found->cuts()));
}

// repartition(index, order, cuts): bytes of int32; of no bits: as they come.
PyObject* repartition(PyObject*, PyObject* args) {
    PyObject* object;
    Py_buffer order, cuts;
    if (!PyArg_ParseTuple(args, "Oy*y*", &object, &order, &cuts)) return nullptr;
    IndexDMIH* index = index_of(object);
    const auto ints = [](const Py_buffer& buffer) {
        const int* const begin = static_cast<const int*>(buffer.buf);
        return std::vector<int>(begin, begin + buffer.len / static_cast<Py_ssize_t>(sizeof(int)));
    };
    const bool done =
        index != nullptr && without_gil([&] {
            if (order.len == 0) return index->repartition(nullptr);
            if (order.len != Py_ssize_t{index->d} * static_cast<Py_ssize_t>(sizeof(int)))
                throw std::invalid_argument("a partition of codes of another length");
            index->repartition(std::make_shared<const dmih::Partition>(ints(order), ints(cuts)));
        });
    PyBuffer_Release(&order);
    PyBuffer_Release(&cuts);
    if (!done) return nullptr;
    Py_RETURN_NONE;
}

// check_may_change(index): raises RuntimeError where it is mapped from a file.
PyObject* check_may_change(PyObject*, PyObject* object) {
    IndexDMIH* index = index_of(object);
    if (index == nullptr || !without_gil([&] { index->engine().check_may_change(); }))
        return nullptr;
    Py_RETURN_NONE;
}

// cuts_for(index, n): of a part of n codes, as long as nothing has been learned.
PyObject* cuts_for(PyObject*, PyObject* args) {
    PyObject* object;
    unsigned long long n;
    if (!PyArg_ParseTuple(args, "OK", &object, &n)) return nullptr;
    IndexDMIH* index = index_of(object);
    std::vector<int> lengths;
    if (index == nullptr || !without_gil([&] { lengths = index->engine().cuts_for(n); }))
        return nullptr;
    return tuple_of(lengths);
}

// reconstruct_batch(index, keys, out): int64 (n, 1) ids, uint8 (n, code_size) codes.
PyObject* reconstruct_batch(PyObject*, PyObject* args) {
    PyObject *object, *keys_object, *out_object;
    if (!PyArg_ParseTuple(args, "OOO", &object, &keys_object, &out_object)) return nullptr;
    IndexDMIH* index = index_of(object);
    if (index == nullptr) return nullptr;
    Matrix keys(keys_object, 'l', 0), out(out_object, 'B', PyBUF_WRITABLE);
    const bool fits = keys.fits && out.fits && keys.view.shape[1] == 1 &&
                      out.view.shape[0] == keys.view.shape[0] &&
                      out.view.shape[1] == index->code_size;
    if (!fits) PyErr_SetString(PyExc_ValueError, "expected ids (n, 1) and codes (n, code_size)");
    const bool done =
        fits && without_gil([&] {
            index->reconstruct_batch(keys.view.shape[0], static_cast<const int64_t*>(keys.view.buf),
                                     static_cast<uint8_t*>(out.view.buf));
        });
    keys.release();
    out.release();
    if (!done) return nullptr;
    Py_RETURN_NONE;
}

// What SWIG's wrapper of a `name` of FAISS's points to; null where `object` is something else.
void* pointer_of(PyObject* object, swig_type_info* type, const char* name) {
    void* pointer = nullptr;
    if (SWIG_IsOK(SWIG_ConvertPtr(object, &pointer, type, SWIG_POINTER_NO_NULL))) return pointer;
    PyErr_Format(PyExc_TypeError, "expected a faiss.%s, got a %s", name, Py_TYPE(object)->tp_name);
    return nullptr;
}

// As a NumPy array of bool.
PyObject* mask_of(const faiss::IDSelector& selector, int64_t n) {
    PyObject* const bytes = dmih::selected(selector, n);
    PyObject* const numpy = bytes != nullptr ? PyImport_ImportModule("numpy") : nullptr;
    PyObject* const mask =
        numpy != nullptr ? PyObject_CallMethod(numpy, "frombuffer", "Os", bytes, "bool") : nullptr;
    Py_XDECREF(numpy);
    Py_XDECREF(bytes);
    return mask;
}

// The arguments (object, n) of the two functions below. False: Python's error is set.
bool object_and_n(PyObject* args, PyObject** object, long long* n) {
    if (!PyArg_ParseTuple(args, "OL", object, n)) return false;
    if (*n < 0) PyErr_Format(PyExc_ValueError, "expected n >= 0 ids, got %lld", *n);
    return *n >= 0;
}

// selector_mask(selector, n): which of the ids 0 to n - 1 a faiss.IDSelector selects.
PyObject* selector_mask(PyObject*, PyObject* args) {
    PyObject* object;
    long long n;
    if (!object_and_n(args, &object, &n)) return nullptr;
    void* const selector = pointer_of(object, swig.id_selector, "IDSelector");
    return selector != nullptr ? mask_of(*static_cast<faiss::IDSelector*>(selector), n) : nullptr;
}

// params_mask(params, n): the same for the selector of faiss.SearchParameters; None without one.
PyObject* params_mask(PyObject*, PyObject* args) {
    PyObject* object;
    long long n;
    if (!object_and_n(args, &object, &n)) return nullptr;
    if (object == Py_None) Py_RETURN_NONE;
    void* const params = pointer_of(object, swig.search_parameters, "SearchParameters");
    if (params == nullptr) return nullptr;
    const faiss::IDSelector* const selector = static_cast<faiss::SearchParameters*>(params)->sel;
    if (selector == nullptr) Py_RETURN_NONE;
    return mask_of(*selector, n);
}

PyMethodDef unlocked_functions[] = {
    {"search", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(search)), METH_FASTCALL,
     nullptr},
    {"compact", compact, METH_O, nullptr},
    {"add_singly", add_singly, METH_VARARGS, nullptr},
    {"memory_usage", memory_usage, METH_O, nullptr},
    {"cuts", cuts, METH_O, nullptr},
    {"check_may_change", check_may_change, METH_O, nullptr},
    {"cuts_for", cuts_for, METH_VARARGS, nullptr},
    {"partition", partition, METH_O, nullptr},
    {"repartition", repartition, METH_VARARGS, nullptr},
    {"reconstruct_batch", reconstruct_batch, METH_VARARGS, nullptr},
    {"selector_mask", selector_mask, METH_VARARGS, nullptr},
    {"params_mask", params_mask, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

nb::object make_search_parameters() {
    return nb::steal(SWIG_NewPointerObj(new dmih::SearchParametersDMIH, swig.search_parameters,
                                        SWIG_POINTER_OWN | SWIG_POINTER_NOSHADOW));
}

dmih::SearchParametersDMIH& parameters_of(nb::handle object) {
    void* const pointer = pointer_of(object.ptr(), swig.search_parameters, "SearchParameters");
    if (pointer == nullptr) throw nb::python_error();
    auto* const own =
        dynamic_cast<dmih::SearchParametersDMIH*>(static_cast<faiss::SearchParameters*>(pointer));
    if (own == nullptr) throw nb::type_error("expected SearchParametersDMIH");
    return *own;
}

nb::object make_python_index(int d, int64_t key) {
    return nb::steal(dmih::to_python(new PythonIndex(d, key)));
}

void set_ntotal(nb::handle object, int64_t ntotal) {
    void* const pointer = pointer_of(object.ptr(), swig.index_binary, "IndexBinary");
    if (pointer == nullptr) throw nb::python_error();
    auto* const index = dynamic_cast<PythonIndex*>(static_cast<faiss::IndexBinary*>(pointer));
    if (index == nullptr) throw nb::type_error("expected an index of make_python_index");
    index->ntotal = ntotal;
}

void force_engine(nb::handle object, const std::string& name) {
    of(object).engine().force_engine(name == "scan"    ? dmih::Engine::Scan
                                     : name == "probe" ? dmih::Engine::Probe
                                                       : dmih::Engine::Planned);
}

std::vector<std::string> simd_levels() {
    std::vector<std::string> names;
    for (const dmih::simd::Kernels* kernels : dmih::simd::available())
        names.push_back(kernels->name);
    return names;
}

nb::dict kernel_speeds(int d) {
    const dmih::KernelSpeeds speeds = dmih::kernel_speeds(dmih::words_for(d));
    nb::dict out;
    out["fold"] = speeds.fold;
    out["fold_limit"] = speeds.fold_limit;
    out["planes"] = speeds.planes;
    if (speeds.match < 1e300) {
        out["columns"] = speeds.columns;
        out["match"] = speeds.match;
    }
    out["row"] = speeds.row;
    out["row_limit"] = speeds.row_limit;
    out["block"] = static_cast<double>(speeds.block);
    return out;
}

nb::dict statistics() {
    const dmih::Stats& stats = dmih::stats();
    nb::dict out;
    out["queries"] = stats.queries.load();
    out["probes"] = stats.probes.load();
    out["candidates"] = stats.candidates.load();
    out["compared"] = stats.compared.load();
    out["scanned"] = stats.scanned.load();
    out["fallbacks"] = stats.fallbacks.load();
    out["select_ns"] = stats.select_ns.load();
    out["probe_ns"] = stats.probe_ns.load();
    out["scan_ns"] = stats.scan_ns.load();
    out["budget_ns"] = stats.budget_ns.load();
    out["answer_ns"] = stats.answer_ns.load();
    out["visited"] = stats.compared.load() + stats.scanned.load();
    return out;
}

}  // namespace

PyObject* dmih::to_python(faiss::IndexBinary* index) {
    return SWIG_NewPointerObj(index, swig.index_binary, SWIG_POINTER_OWN | SWIG_POINTER_NOSHADOW);
}

IndexDMIH* dmih::index_of(PyObject* object) {
    void* pointer = nullptr;
    if (SWIG_IsOK(SWIG_ConvertPtr(object, &pointer, swig.index_binary, 0)))
        if (auto* index = dynamic_cast<IndexDMIH*>(static_cast<faiss::IndexBinary*>(pointer)))
            return index;
    PyErr_SetString(PyExc_TypeError, "expected an IndexDMIH");
    return nullptr;
}

NB_MODULE(_engine, m) {
    swig = {swig_type("faiss::IndexBinary"), swig_type("faiss::IDSelector"),
            swig_type("faiss::SearchParameters")};
    m.def("make", &make, nb::arg("d"), nb::arg("mode"), nb::arg("cuts"),
          nb::arg("memory_budget").none());
    if (PyModule_AddFunctions(m.ptr(), unlocked_functions) != 0) throw nb::python_error();
    if (PyModule_AddFunctions(m.ptr(), dmih::storage_functions) != 0) throw nb::python_error();
    m.def("make_python_index", &make_python_index);
    m.def("make_search_parameters", &make_search_parameters);
    m.def("max_codes", [](nb::handle params) { return parameters_of(params).max_codes; });
    m.def("set_max_codes",
          [](nb::handle params, int64_t n) { parameters_of(params).max_codes = n; });
    m.def("set_ntotal", &set_ntotal);
    m.def("force_engine", &force_engine);
    m.def("simd_levels", &simd_levels);
    m.def("simd_level", [] { return std::string(dmih::simd::active().name); });
    m.def("set_simd_level", &dmih::simd::set_active);
    m.def("kernel_speeds", &kernel_speeds);
    m.def("stats", &statistics);
    m.def("reset_stats", [] { dmih::stats().reset(); });
}
