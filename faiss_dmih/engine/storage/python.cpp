// Plain CPython functions: those that give up Python's lock must be (gil.hpp).
#include "python.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include "../crc32c.hpp"
#include "../gil.hpp"
#include "storage.hpp"

namespace dmih {
namespace {

// Python has an error set, which is to be raised.
struct PythonError : std::exception {};

// Calls a Python function with a view of memory, which it must not keep.
PyObject* call_with_view(PyObject* function, void* data, size_t size, int flags) {
    PyObject* const view =
        PyMemoryView_FromMemory(static_cast<char*>(data), static_cast<Py_ssize_t>(size), flags);
    PyObject* const answer = view != nullptr ? PyObject_CallOneArg(function, view) : nullptr;
    if (view != nullptr) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyObject* const released = PyObject_CallMethod(view, "release", nullptr);
        Py_XDECREF(released);
        if (type != nullptr) PyErr_Restore(type, value, trace);
    }
    Py_XDECREF(view);
    if (answer == nullptr || PyErr_Occurred() != nullptr) {
        Py_XDECREF(answer);
        throw PythonError();
    }
    return answer;
}

// write(view). Called without Python's lock: who writes may have to wait for somebody who changes
// the index, and who asks for the lock now and then.
class CallSink : public Sink {
public:
    explicit CallSink(PyObject* write) : write_(write) {}
    void write(const void* data, size_t size) override {
        bool written = false;
        with_gil([&] {
            try {
                Py_DECREF(call_with_view(write_, const_cast<void*>(data), size, PyBUF_READ));
                written = true;
            } catch (const PythonError&) {  // stays set in this thread
            }
        });
        if (!written) throw PythonError();
    }

private:
    PyObject* write_;
};

// read_into(view) returns how many bytes it has put there, 0 at the end.
class CallSource : public Source {
public:
    explicit CallSource(PyObject* read_into) : read_into_(read_into) {}
    size_t read(void* out, size_t size) override {
        size_t done = 0;
        while (done < size) {
            PyObject* const answer = call_with_view(read_into_, static_cast<char*>(out) + done,
                                                    size - done, PyBUF_WRITE);
            const size_t n = PyLong_AsSize_t(answer);
            Py_DECREF(answer);
            if (PyErr_Occurred() != nullptr) throw PythonError();
            if (n > size - done)
                throw std::runtime_error("a reader gave more than it was asked for");
            if (n == 0) break;
            done += n;
        }
        return done;
    }
    uint64_t left() const override { return kUnknown; }

private:
    PyObject* read_into_;
};

// An index to be; deleted unless it is taken.
struct Filled {
    std::unique_ptr<IndexDMIH> index;
    uint32_t faulty = 0;

    void read(Source& source) {
        const Contents contents = Storage::read_contents(source);
        index = std::make_unique<IndexDMIH>(contents.options);
        faulty = Storage::read(contents, source, index->engine(), faiss_control());
        index->filled();
    }

    // (index, number of segments that were not whole).
    PyObject* to_python() {
        return Py_BuildValue("(NI)", dmih::to_python(index.release()), faulty);
    }
};

uint64_t file_size(int file) {
    struct stat found;
    if (fstat(file, &found) != 0)
        throw std::system_error(errno, std::generic_category(), "reading an index");
    return static_cast<uint64_t>(found.st_size);
}

// Part of a file: (fd, offset, size). False: Python's error is set.
struct Range {
    int file = -1;
    unsigned long long offset = 0, size = 0;

    bool parse(PyObject* args) { return PyArg_ParseTuple(args, "iKK", &file, &offset, &size) != 0; }
    void check() const {
        const uint64_t there = file_size(file);
        if (offset > there || size > there - offset)
            throw FormatError("the file is truncated: expected " + std::to_string(size) +
                              " bytes at " + std::to_string(offset) + ", it has " +
                              std::to_string(there));
    }
};

// write_file(index, fd)
PyObject* write_file(PyObject*, PyObject* args) {
    PyObject* object;
    int file;
    if (PyArg_ParseTuple(args, "Oi", &object, &file) == 0) return nullptr;
    const IndexDMIH* const index = index_of(object);
    if (index == nullptr || !without_gil([&] {
            FileSink sink(file);
            Storage::write(const_cast<IndexDMIH*>(index)->engine(), sink, faiss_control());
        }))
        return nullptr;
    Py_RETURN_NONE;
}

// write_stream(index, write)
PyObject* write_stream(PyObject*, PyObject* args) {
    PyObject *object, *function;
    if (PyArg_ParseTuple(args, "OO", &object, &function) == 0) return nullptr;
    IndexDMIH* const index = index_of(object);
    if (index == nullptr) return nullptr;
    CallSink sink(function);
    if (!without_gil([&] { Storage::write(index->engine(), sink, faiss_control()); }))
        return nullptr;
    Py_RETURN_NONE;
}

// read_file(fd, offset, size)
PyObject* read_file(PyObject*, PyObject* args) {
    Range range;
    Filled filled;
    if (!range.parse(args) || !without_gil([&] {
            range.check();
            FileSource source(range.file, range.offset, range.size);
            filled.read(source);
        }))
        return nullptr;
    return filled.to_python();
}

// read_memory(buffer)
PyObject* read_memory(PyObject*, PyObject* object) {
    Py_buffer buffer;
    if (PyObject_GetBuffer(object, &buffer, PyBUF_C_CONTIGUOUS) != 0) return nullptr;
    Filled filled;
    const bool done = without_gil([&] {
        MemorySource source(buffer.buf, static_cast<size_t>(buffer.len));
        filled.read(source);
    });
    PyBuffer_Release(&buffer);
    return done ? filled.to_python() : nullptr;
}

// read_stream(read_into)
PyObject* read_stream(PyObject*, PyObject* function) {
    Filled filled;
    CallSource source(function);
    const Failure failure = failure_of([&] { filled.read(source); });
    return failure.raise() ? filled.to_python() : nullptr;
}

// map_file(fd, offset, size)
PyObject* map_file(PyObject*, PyObject* args) {
    Range range;
    Filled filled;
    if (!range.parse(args) || !without_gil([&] {
            range.check();
            const auto mapping = std::make_shared<const Mapping>(
                range.file, static_cast<size_t>(range.offset + range.size));
            Image image;
            image.owner = mapping;
            image.data = mapping->data() + range.offset;
            image.size = static_cast<size_t>(range.size);
            if (range.offset % kAlignment != 0)
                throw FormatError("an index at byte " + std::to_string(range.offset) +
                                  ", no multiple of 64, cannot be mapped");
            MemorySource source(image.data, image.size);
            const Contents contents = Storage::read_contents(source);
            filled.index = std::make_unique<IndexDMIH>(contents.options);
            filled.faulty = Storage::map(contents, std::move(image), filled.index->engine());
            filled.index->filled();
        }))
        return nullptr;
    return filled.to_python();
}

// copy_index(index): one in memory, as the others return it.
PyObject* copy_index(PyObject*, PyObject* object) {
    IndexDMIH* const index = index_of(object);
    Filled copy;
    if (index == nullptr || !without_gil([&] {
            copy.index = std::make_unique<IndexDMIH>(index->engine().options());
            copy.faulty = Storage::copy(index->engine(), copy.index->engine(), faiss_control());
            copy.index->filled();
        }))
        return nullptr;
    return copy.to_python();
}

// Calls work() while nobody can change any of the indexes. They are sorted, so that nobody who
// takes two at once (merge_from) waits for this thread, and this one for them.
void hold(const std::vector<const Index*>& sorted, size_t at, const Control& control,
          const std::function<void()>& work) {
    if (at == sorted.size()) return work();
    const Gate::Visit held = sorted[at]->hold(control);
    hold(sorted, at + 1, control, work);
}

// hold(indexes, function): function(), while nobody can change any of the indexes of the tuple.
PyObject* hold_indexes(PyObject*, PyObject* args) {
    PyObject *objects, *function;
    if (PyArg_ParseTuple(args, "O!O", &PyTuple_Type, &objects, &function) == 0) return nullptr;
    const Py_ssize_t n = PyTuple_GET_SIZE(objects);
    std::vector<const Index*> indexes;
    if (!failure_of([&] { indexes.reserve(static_cast<size_t>(n)); }).raise()) return nullptr;
    for (Py_ssize_t i = 0; i < n; ++i) {
        IndexDMIH* const index = index_of(PyTuple_GET_ITEM(objects, i));
        if (index == nullptr) return nullptr;
        indexes.push_back(&index->engine());
    }
    std::sort(indexes.begin(), indexes.end(), std::less<>());
    PyObject* answer = nullptr;
    const bool done = without_gil([&] {
        hold(indexes, 0, faiss_control(),
             [&] { with_gil([&] { answer = PyObject_CallNoArgs(function); }); });
    });
    return done ? answer : nullptr;
}

// stored_size(index)
PyObject* stored_size(PyObject*, PyObject* object) {
    IndexDMIH* const index = index_of(object);
    uint64_t size = 0;
    if (index == nullptr ||
        !without_gil([&] { size = Storage::size_of(index->engine(), faiss_control()); }))
        return nullptr;
    return PyLong_FromUnsignedLongLong(size);
}

const char* name_of(Mode mode) {
    return mode == Mode::Auto ? "auto" : mode == Mode::Mih ? "mih" : "scan";
}

PyObject* cuts_of(const Options& options) {
    PyObject* const cuts = PyTuple_New(static_cast<Py_ssize_t>(options.cuts.size()));
    if (cuts == nullptr) return nullptr;
    for (size_t i = 0; i < options.cuts.size(); ++i)
        PyTuple_SET_ITEM(cuts, static_cast<Py_ssize_t>(i), PyLong_FromLong(options.cuts[i]));
    return cuts;
}

PyObject* budget_of(const Options& options) {
    if (options.memory_budget) return PyLong_FromUnsignedLongLong(*options.memory_budget);
    Py_RETURN_NONE;
}

// options(index): (d, mode, cuts, memory_budget, mapped)
PyObject* options(PyObject*, PyObject* object) {
    IndexDMIH* const index = index_of(object);
    if (index == nullptr) return nullptr;
    const Options& given = index->engine().options();
    return Py_BuildValue("(isNNN)", given.d, name_of(given.mode), cuts_of(given), budget_of(given),
                         PyBool_FromLong(index->engine().mapped()));
}

// is_dmih(object)
PyObject* is_dmih(PyObject*, PyObject* object) {
    const bool is = index_of(object) != nullptr;
    PyErr_Clear();
    return PyBool_FromLong(is);
}

// contents(fd, offset, size, verify): (version, d, mode, cuts, memory_budget, ntotal, sections),
// these (tag, segment, table, offset, size, crc, sound or None).
PyObject* contents(PyObject*, PyObject* args) {
    Range range;
    int verify;
    if (PyArg_ParseTuple(args, "iKKp", &range.file, &range.offset, &range.size, &verify) == 0)
        return nullptr;
    Contents found;
    std::vector<bool> damaged;
    if (!without_gil([&] {
            range.check();
            FileSource source(range.file, range.offset, range.size);
            found = Storage::read_contents(source);
            if (verify != 0) damaged = Storage::damage(found, source, faiss_control());
        }))
        return nullptr;
    PyObject* const sections = PyList_New(0);
    for (size_t i = 0; sections != nullptr && i < found.sections.size(); ++i) {
        const SectionEntry& s = found.sections[i];
        const std::string tag(s.tag.data(), strnlen(s.tag.data(), s.tag.size()));
        PyObject* const sound = verify == 0 ? Py_None : damaged[i] ? Py_False : Py_True;
        PyObject* const name =
            PyUnicode_DecodeLatin1(tag.data(), static_cast<Py_ssize_t>(tag.size()), nullptr);
        PyObject* const entry = Py_BuildValue(
            "(NIIKKIO)", name, s.segment, s.table, static_cast<unsigned long long>(s.offset),
            static_cast<unsigned long long>(s.size), s.crc, sound);
        if (entry == nullptr || PyList_Append(sections, entry) != 0) {
            Py_XDECREF(entry);
            Py_DECREF(sections);
            return nullptr;
        }
        Py_DECREF(entry);
    }
    return Py_BuildValue("(IisNNKN)", found.version, found.options.d, name_of(found.options.mode),
                         cuts_of(found.options), budget_of(found.options),
                         static_cast<unsigned long long>(found.ntotal), sections);
}

// crc32c(buffer, before, portable)
PyObject* checksum(PyObject*, PyObject* args) {
    Py_buffer buffer;
    unsigned int before;
    int portable;
    if (PyArg_ParseTuple(args, "y*Ip", &buffer, &before, &portable) == 0) return nullptr;
    const auto crc = portable != 0 ? crc32c_portable : crc32c;
    const uint32_t out = crc(buffer.buf, static_cast<size_t>(buffer.len), before);
    PyBuffer_Release(&buffer);
    return PyLong_FromUnsignedLong(out);
}

}  // namespace

PyMethodDef storage_functions[] = {{"write_file", write_file, METH_VARARGS, nullptr},
                                   {"write_stream", write_stream, METH_VARARGS, nullptr},
                                   {"read_file", read_file, METH_VARARGS, nullptr},
                                   {"read_memory", read_memory, METH_O, nullptr},
                                   {"read_stream", read_stream, METH_O, nullptr},
                                   {"map_file", map_file, METH_VARARGS, nullptr},
                                   {"copy_index", copy_index, METH_O, nullptr},
                                   {"hold", hold_indexes, METH_VARARGS, nullptr},
                                   {"stored_size", stored_size, METH_O, nullptr},
                                   {"options", options, METH_O, nullptr},
                                   {"is_dmih", is_dmih, METH_O, nullptr},
                                   {"contents", contents, METH_VARARGS, nullptr},
                                   {"crc32c", checksum, METH_VARARGS, nullptr},
                                   {nullptr, nullptr, 0, nullptr}};

}  // namespace dmih
