// Python called from FAISS's side, from any thread.
//
// Whatever runs with Python's lock here is written with plain references, without destructors: a
// thread that with_gil stops for good must not touch Python on its way there.
#pragma once

#include <string>

#include "gil.hpp"

namespace dmih {

struct TakenError {
    PyObject *type = nullptr, *value = nullptr, *trace = nullptr;

    // Python's error, if there is one, is no longer set.
    static TakenError take() {
        TakenError error;
        PyErr_Fetch(&error.type, &error.value, &error.trace);
        return error;
    }
    explicit operator bool() const { return type != nullptr; }

    void put_back() { PyErr_Restore(type, value, trace); }

    void drop() {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }

    // "TypeName: text"
    std::string describe() {
        PyErr_NormalizeException(&type, &value, &trace);
        PyObject* const text = PyObject_Str(value);
        const char* const utf8 = text != nullptr ? PyUnicode_AsUTF8(text) : nullptr;
        if (utf8 == nullptr) PyErr_Clear();
        std::string out = reinterpret_cast<PyTypeObject*>(type)->tp_name;
        if (utf8 != nullptr && *utf8 != '\0') out += std::string(": ") + utf8;
        Py_XDECREF(text);
        return out;
    }
};

// A memoryview to read; callers may pass null for no bytes.
inline PyObject* read_only_view(const void* data, size_t bytes) {
    static char nothing;
    char* const start = bytes != 0 ? static_cast<char*>(const_cast<void*>(data)) : &nothing;
    return PyMemoryView_FromMemory(start, static_cast<Py_ssize_t>(bytes), PyBUF_READ);
}

// Runs work() with Python's lock. What it leaves set as Python's error is thrown as FaissException,
// and stays set where somebody is going to see it.
template <class Work>
void in_python(Work work) {
    // Otherwise the thread is FAISS's, and what it leaves set is never seen.
    const bool error_is_seen = PyGILState_GetThisThreadState() != nullptr;
    std::string failure;
    with_gil([&] {
        // Of another sub-index: FAISS's composites go on after a failure.
        TakenError earlier = TakenError::take();
        work();
        if (TakenError error = TakenError::take()) {
            failure = error.describe();
            if (error_is_seen && !earlier)
                error.put_back();
            else
                error.drop();
        }
        if (earlier) earlier.put_back();
    });
    if (!failure.empty()) throw faiss::FaissException(failure);
}

}  // namespace dmih
