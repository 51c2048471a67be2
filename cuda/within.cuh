// The collector of range scans: keeps what is within a bound, which stays.
#pragma once

#include "hits.cuh"

struct Within {
    Hits hits;
    int most;

    __device__ __forceinline__ int bound_of(u32) const { return most; }
    __device__ __forceinline__ void add(u32 query, int distance, u32 slot) const {
        hits.add(query, distance, slot);
    }
    __device__ __forceinline__ void tighten(u32) const {}
};
