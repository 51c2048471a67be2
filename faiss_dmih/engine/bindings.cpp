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

IndexDMIH& of(nb::handle object) {
    void* pointer = nullptr;
    if (!SWIG_IsOK(SWIG_ConvertPtr(object.ptr(), &pointer, index_binary_type(), 0)))
        throw nb::type_error("expected an IndexDMIH");
    auto* index = dynamic_cast<IndexDMIH*>(static_cast<faiss::IndexBinary*>(pointer));
    if (index == nullptr) throw nb::type_error("expected an IndexDMIH");
    return *index;
}

// A C-contiguous matrix in host memory by Python's buffer protocol, which for NumPy's arrays takes
// a tenth of the time that DLPack does.
class Matrix {
public:
    Matrix(nb::handle object, char format, bool writable) {
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) {
            PyErr_Clear();
            view_.obj = nullptr;
            return;
        }
        ok_ = view_.ndim == 2 && view_.format[0] == format && view_.format[1] == '\0';
    }
    Matrix(const Matrix&) = delete;
    Matrix& operator=(const Matrix&) = delete;
    ~Matrix() {
        if (view_.obj != nullptr) PyBuffer_Release(&view_);
    }
    explicit operator bool() const { return ok_; }
    int64_t rows() const { return view_.shape[0]; }
    int64_t columns() const { return view_.shape[1]; }
    template <class T>
    T* as() const {
        return static_cast<T*>(view_.buf);
    }

private:
    Py_buffer view_{};
    bool ok_ = false;
};

// The common case of IndexBinary.search, without the conversions of FAISS's Python layer, which
// take longer than a lone query. D and I are (n, k) int32 and int64. False: `x` is something that
// FAISS's layer has to look at first.
bool search(nb::handle object, nb::handle x, int64_t k, nb::handle D, nb::handle I) {
    IndexDMIH& index = of(object);
    const Matrix codes(x, 'B', false), distances(D, 'i', true), ids(I, 'l', true);
    if (!codes || codes.columns() != index.code_size || !distances || !ids) return false;
    try {
        nb::gil_scoped_release release;
        index.search(codes.rows(), codes.as<const uint8_t>(), k, distances.as<int32_t>(),
                     ids.as<int64_t>(), nullptr);
    } catch (const faiss::FaissException& error) {
        // FAISS's check for signals has set Python's error already, as for Ctrl-C.
        if (PyErr_Occurred() != nullptr) throw nb::python_error();
        throw std::runtime_error(error.what());
    }
    return true;
}

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

nb::dict statistics() {
    const dmih::Stats& stats = dmih::stats();
    nb::dict out;
    out["queries"] = stats.queries.load();
    out["probes"] = stats.probes.load();
    out["candidates"] = stats.candidates.load();
    out["scanned"] = stats.scanned.load();
    out["fallbacks"] = stats.fallbacks.load();
    return out;
}

}  // namespace

NB_MODULE(_engine, m) {
    m.def("make", &make, nb::arg("d"), nb::arg("mode"), nb::arg("cuts"),
          nb::arg("memory_budget").none());
    m.def("search", &search);
    m.def("compact", [](nb::handle object) {
        IndexDMIH& index = of(object);
        nb::gil_scoped_release release;
        index.compact();
    });
    m.def("cuts", [](nb::handle object) { return of(object).engine().cuts_in_use(); });
    m.def("memory_usage", &memory_usage);
    m.def("force_engine", &force_engine);
    m.def("simd_levels", &simd_levels);
    m.def("simd_level", [] { return std::string(dmih::simd::active().name); });
    m.def("set_simd_level", &dmih::simd::set_active);
    m.def("stats", &statistics);
    m.def("reset_stats", [] { dmih::stats().reset(); });
}
