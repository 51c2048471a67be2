// A program around the kernels of one file, for sanitizers: reads a launch from a file, runs it
// over copies of the arrays that are exactly as large as they are, and writes them back.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime.hpp"

extern "C" const shim::Kernel shim_kernels[];

namespace {

void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "shim: cannot %s\n", what);
    std::exit(2);
}

template <class T>
void read(std::FILE* file, T* to, size_t count) {
    check(std::fread(to, sizeof(T), count, file) == count, "read the launch");
}

}  // namespace

int main(int argc, char** argv) {
    check(argc == 3, "start without a kernel's name and a file");
    std::FILE* file = std::fopen(argv[2], "r+b");
    check(file, "open the launch");
    shim::Launch launch;
    uint64_t count;
    read(file, &launch, 1);
    read(file, &count, 1);
    std::vector<shim::Argument> arguments(count);
    for (shim::Argument& argument : arguments) {
        read(file, &argument, 1);
        // Aligned as on a GPU; an odd size is fine for malloc's tools all the same.
        check(posix_memalign(&argument.data, 256, argument.bytes) == 0, "allocate");
        read(file, static_cast<char*>(argument.data), argument.bytes);
    }
    char error[4096];
    if (shim_launch(shim_kernels, argv[1], &launch, arguments.data(), static_cast<unsigned>(count),
                    error, sizeof error) != 0) {
        std::fprintf(stderr, "%s\n", error);
        return 3;
    }
    std::rewind(file);
    for (const shim::Argument& argument : arguments) {
        check(std::fwrite(argument.data, 1, argument.bytes, file) == argument.bytes, "write");
        std::free(argument.data);
    }
    check(std::fclose(file) == 0, "write");
    return 0;
}
