// Integers by their width. NVRTC has no <cstdint>, and CUDA's atomics know unsigned long long, not
// the unsigned long that uint64_t is on Linux.
#pragma once

using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;
static_assert(sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(i64) == 8, "LP64 or LLP64");
