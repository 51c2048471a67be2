// Python's lock: given up by threads of Python's, taken by any thread.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include <exception>
#include <new>
#include <string>

#include "faiss_abi.hpp"

namespace dmih {

// What runs without Python's lock. To be called from plain CPython functions, not nanobind's: a
// daemon thread that wants the lock back while the process exits is ended by unwinding it (before
// Python 3.14), and that must meet neither a noexcept function nor a destructor that touches
// Python.
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
    // FAISS's check for signals has set an error already, as for Ctrl-C; so has a selector that is
    // written in Python.
    if (PyErr_Occurred() == nullptr) PyErr_SetString(type, message.c_str());
    return false;
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
