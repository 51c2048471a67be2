// Reading and writing, as functions of the Python module.
#pragma once

#include <Python.h>

#include "../index_dmih.hpp"

namespace dmih {

// bindings.cpp: to Python, which owns the index from here on; and back, where null is an error that
// is set.
PyObject* to_python(faiss::IndexBinary* index);
IndexDMIH* index_of(PyObject* object);

extern PyMethodDef storage_functions[];

}  // namespace dmih
