// Python's lock: given up by threads of Python's, taken by any thread.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "faiss_abi.hpp"

namespace dmih {

// What a piece of work has thrown.
struct Failure {
    PyObject* type = nullptr;  // null: nothing
    std::string message;
    int number = 0;  // of an OSError

    // True: nothing was thrown. False: Python's error is set. To be called with Python's lock.
    bool raise() const {
        if (type == nullptr) return true;
        // FAISS's check for signals has set an error already, as for Ctrl-C; so has a selector that
        // is written in Python.
        if (PyErr_Occurred() != nullptr) return false;
        PyObject* const value =
            type == PyExc_OSError ? Py_BuildValue("(is)", number, message.c_str()) : nullptr;
        if (value != nullptr)
            PyErr_SetObject(type, value);
        else
            PyErr_SetString(type, message.c_str());
        Py_XDECREF(value);
        return false;
    }
};

template <class Work>
Failure failure_of(Work work) {
    try {
        work();
    } catch (const std::bad_alloc&) {
        return {PyExc_MemoryError, "", 0};
    } catch (const std::system_error& error) {
        return {PyExc_OSError, error.what(), error.code().value()};
    } catch (const std::invalid_argument& error) {
        return {PyExc_ValueError, error.what(), 0};
    } catch (const std::exception& error) {
        return {PyExc_RuntimeError, error.what(), 0};
    }
    return {};
}

// What runs without Python's lock. To be called from plain CPython functions, not nanobind's: a
// daemon thread that wants the lock back while the process exits is ended by unwinding it (before
// Python 3.14), and that must meet neither a noexcept function nor a destructor that touches
// Python.
//
// True: done. False: Python's error is set.
template <class Work>
bool without_gil(Work work) {
    PyThreadState* const state = PyEval_SaveThread();
    const Failure failure = failure_of(work);
    PyEval_RestoreThread(state);
    return failure.raise();
}

// Runs work(), which throws nothing, with Python's lock. That unwinding of a thread at exit would
// here end in the catch (...) of FAISS's worker threads, which aborts the process: so the thread
// sleeps until the process is gone, which is also what Python does since 3.14.
template <class Work>
void with_gil(Work work) {
    if (!Py_IsInitialized()) throw faiss::FaissException("Python has ended");
    try {
        const PyGILState_STATE state = PyGILState_Ensure();
        work();
        PyGILState_Release(state);
    } catch (abi::__forced_unwind&) {
        for (;;) pause();
    }
}

}  // namespace dmih
