// Plain references throughout: see python_call.hpp.
#include "training.hpp"

#include "python_call.hpp"

namespace dmih {
namespace {

PyObject* list_of(const std::vector<int>& values) {
    PyObject* const list = PyList_New(static_cast<Py_ssize_t>(values.size()));
    for (size_t i = 0; list != nullptr && i < values.size(); ++i)
        PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), PyLong_FromLong(values[i]));
    return list;
}

// Of a tuple of ints. Python's error may be set.
std::vector<int> ints_of(PyObject* tuple) {
    std::vector<int> out;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "expected a tuple");
        return out;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i)
        out.push_back(static_cast<int>(PyLong_AsLong(PyTuple_GET_ITEM(tuple, i))));
    return out;
}

}  // namespace

std::shared_ptr<const Partition> learned_partition(int64_t n, const uint8_t* codes, int d,
                                                   uint64_t size, const std::vector<int>& cuts,
                                                   bool fixed, Mode mode) {
    std::vector<int> order, lengths;
    in_python([&] {
        const size_t bytes = static_cast<size_t>(n) * static_cast<size_t>(d / 8);
        PyObject* const module = PyImport_ImportModule("faiss_dmih.partition");
        PyObject* const answer =
            module != nullptr
                ? PyObject_CallMethod(module, "_learned", "NiKNis", read_only_view(codes, bytes), d,
                                      static_cast<unsigned long long>(size), list_of(cuts),
                                      static_cast<int>(fixed), mode == Mode::Mih ? "mih" : "auto")
                : nullptr;
        PyObject *order_tuple, *cuts_tuple;
        if (answer != nullptr && PyArg_ParseTuple(answer, "OO", &order_tuple, &cuts_tuple)) try {
                order = ints_of(order_tuple);
                lengths = ints_of(cuts_tuple);
            } catch (const std::bad_alloc&) {
                PyErr_NoMemory();
            }
        Py_XDECREF(answer);
        Py_XDECREF(module);
    });
    if (order.empty()) return nullptr;
    return std::make_shared<const Partition>(std::move(order), std::move(lengths));
}

}  // namespace dmih
