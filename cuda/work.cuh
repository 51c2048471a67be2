// What a scan is to do, and how it is dealt out.
//
// Shares are (chunk of rows, tile of queries), chunks first: blocks that run at a time read the
// same rows, which the L2 cache serves, and every chunk begins with the bounds that the chunks
// before have left. The number of queries is known to the device only (probing may have answered
// some), hence the loop over shares in a grid of fixed size.
#pragma once

#include "rows.cuh"

struct Work {
    const u64* rows;
    u32 first, last;  // slots
    int words;
    const u64* queries;
    const u32* todo;  // numbers of queries, *n_todo of them
    const u32* n_todo;
};

#define WORK_PARAMETERS                                                                            \
    const u64 *__restrict__ rows, u32 first, u32 last, int words, const u64 *__restrict__ queries, \
        const u32 *__restrict__ todo, const u32 *__restrict__ n_todo
#define WORK                                            \
    Work {                                              \
        rows, first, last, words, queries, todo, n_todo \
    }

struct Share {
    const u32* todo;  // n numbers of queries
    int n;
    u32 begin, end;  // tiles of rows
};

// Calls visit(share) for each share of this block: all of its threads together.
template <int kTileQueries, u32 kTileRows, class Visit>
__device__ __forceinline__ void deal(const Work& work, Visit visit) {
    const u32 n_todo = *work.n_todo;
    if (n_todo == 0 || work.first >= work.last) return;
    const u32 tiles = (n_todo + kTileQueries - 1) / kTileQueries;
    const u32 row_tiles = (work.last - work.first + kTileRows - 1) / kTileRows;
    // Four rounds of shares, so that the last one leaves few blocks without.
    const u32 chunks = min(row_tiles, (4 * gridDim.x + tiles - 1) / tiles);
    for (u64 item = blockIdx.x; item < u64{tiles} * chunks; item += gridDim.x) {
        const u32 chunk = static_cast<u32>(item / tiles);
        const u64 at = item % tiles * kTileQueries;
        visit(Share{work.todo + at, static_cast<int>(min(u64{kTileQueries}, n_todo - at)),
                    static_cast<u32>(u64{row_tiles} * chunk / chunks),
                    static_cast<u32>(u64{row_tiles} * (chunk + 1) / chunks)});
    }
}
