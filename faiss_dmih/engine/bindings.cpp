// The Python module faiss_dmih._engine. An IndexDMIH crosses over as the kind of object FAISS's own
// Python layer works with: a SWIG pointer to faiss::IndexBinary, made with SWIG's external runtime.
// The module must be imported after faiss (faiss_dmih/__init__.py sees to it).
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#define SWIG_PYTHON_THREADS
#include "swigpyrun.h"

#include "index_dmih.hpp"
#include "scan_costs.hpp"
#include "simd/kernels.hpp"
#include "stats.hpp"

namespace nb = nanobind;
using dmih::IndexDMIH;

namespace {

swig_type_info* index_binary_type() {
    // Asked once: SWIG searches thousands of names.
    static swig_type_info* type = nullptr;
    if (type == nullptr) type = SWIG_TypeQuery("faiss::IndexBinary *");
    if (type == nullptr)
        throw nb::import_error("FAISS's Python module does not tell SWIG about IndexBinary");
    return type;
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
    faiss::IndexBinary* index = new IndexDMIH(std::move(options));
    return nb::steal(
        SWIG_NewPointerObj(index, index_binary_type(), SWIG_POINTER_OWN | SWIG_POINTER_NOSHADOW));
}

// What runs without Python's lock. Plain CPython functions, not nanobind's: a daemon thread that
// wants the lock back while the process exits is ended by unwinding it (before Python 3.14), and
// that must meet neither a noexcept function nor a destructor that touches Python.
//
// True: done. False: Python's error is set.
template <class Work>
bool without_gil(Work work) {
    std::string message;
    PyObject* type = nullptr;
    PyThreadState* const state = PyEval_SaveThread();
    try {
        work();
    } catch (const std::bad_alloc&) {
        type = PyExc_MemoryError;
    } catch (const std::exception& error) {
        type = PyExc_RuntimeError;
        message = error.what();
    }
    PyEval_RestoreThread(state);
    if (type == nullptr) return true;
    // FAISS's check for signals has set an error already, as for Ctrl-C.
    if (PyErr_Occurred() == nullptr) PyErr_SetString(type, message.c_str());
    return false;
}

IndexDMIH* index_of(PyObject* object) {
    void* pointer = nullptr;
    if (SWIG_IsOK(SWIG_ConvertPtr(object, &pointer, index_binary_type(), 0)))
        if (auto* index = dynamic_cast<IndexDMIH*>(static_cast<faiss::IndexBinary*>(pointer)))
            return index;
    PyErr_SetString(PyExc_TypeError, "expected an IndexDMIH");
    return nullptr;
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

PyMethodDef unlocked_functions[] = {
    {"search", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(search)), METH_FASTCALL,
     nullptr},
    {"compact", compact, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};

nb::dict memory_usage(nb::handle object) {
    const dmih::MemoryUsage usage = of(object).engine().memory_usage();
    nb::dict out;
    out["codes"] = usage.codes;
    out["ids"] = usage.ids;
    out["clusters"] = usage.clusters;
    out["tables"] = usage.tables;
    out["tail"] = usage.tail;
    out["total"] = usage.codes + usage.ids + usage.clusters + usage.tables + usage.tail;
    return out;
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
    return out;
}

}  // namespace

NB_MODULE(_engine, m) {
    m.def("make", &make, nb::arg("d"), nb::arg("mode"), nb::arg("cuts"),
          nb::arg("memory_budget").none());
    if (PyModule_AddFunctions(m.ptr(), unlocked_functions) != 0) throw nb::python_error();
    m.def("cuts", [](nb::handle object) { return of(object).engine().cuts_in_use(); });
    m.def("memory_usage", &memory_usage);
    m.def("force_engine", &force_engine);
    m.def("simd_levels", &simd_levels);
    m.def("simd_level", [] { return std::string(dmih::simd::active().name); });
    m.def("set_simd_level", &dmih::simd::set_active);
    m.def("kernel_speeds", &kernel_speeds);
    m.def("stats", &statistics);
    m.def("reset_stats", [] { dmih::stats().reset(); });
}
