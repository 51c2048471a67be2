// Which instruction set to use is decided here, once, when first asked; nothing runs at import.
#include <atomic>

#include "kernels.hpp"

namespace dmih::simd {
namespace {

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> levels{&kPortable};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) levels.push_back(&kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        levels.push_back(&kAvx512);
        if (__builtin_cpu_supports("avx512vpopcntdq"))
            levels.push_back(__builtin_cpu_is("amd") ? &kAvx512VpopcntdqAmd : &kAvx512Vpopcntdq);
    }
#elif defined(__aarch64__)
    levels.push_back(&kNeon);  // part of the architecture
#endif
    return levels;
}

const Kernels& active() {
    const Kernels* kernels = chosen.load(std::memory_order_acquire);
    if (kernels == nullptr) {
        kernels = available().back();
        chosen.store(kernels, std::memory_order_release);
    }
    return *kernels;
}

bool set_active(const std::string& name) {
    for (const Kernels* kernels : available()) {
        if (name != kernels->name) continue;
        chosen.store(kernels, std::memory_order_release);
        return true;
    }
    return false;
}

}  // namespace dmih::simd
