// The contract of the scan kernels: one translation unit per instruction set fills one `Kernels`.
//
// Three ways to compare queries with stored codes, all exact:
//
//   rows   one query, codes read row by row as they are stored. Bound by memory: it reads each code
//          once per query. For one query, or a few.
//   match  some queries. A block of codes is turned into columns of words, so that eight codes are
//          compared and counted word by word, and nothing is summed across a register
//          (avx512_columns.hpp). Where a popcount of words is an instruction.
//   fold   many queries. A block of codes is turned into bit planes once and every query of the
//          batch is folded over them (fold.hpp has the algorithm and its cost). Bound by the
//          vector ports.
//
// Codes are rows of `words` 64-bit words, little endian, the unused bits of the last word zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace dmih::simd {

// A bit plane has one bit per code of a block. The widest register has 8 lanes of 64 bits.
constexpr int kMaxLanes = 8;
constexpr int kMaxBlockCodes = 64 * kMaxLanes;

// 64 bits of a query are 21 triples and one single bit; fold.hpp says what the planes hold.
constexpr int kTriples = 21;
constexpr int kPlanesPerTriple = 10;
constexpr int kPlanesPerWord = kTriples * kPlanesPerTriple + 2;
constexpr int kOffsetsPerWord = 2 * kTriples + 1;

// Where in a block's planes one 64-bit word of one query finds its inputs, in bytes.
struct FoldWord {
    uint16_t sum[kTriples + 1];
    uint16_t carry[kTriples];
};

// The codes of a block that are within a query's bound: lane l, bit r is code r * lanes + l. Most
// often one or two are: `lanes` says where mask is not zero.
struct BlockHit {
    uint32_t query;
    uint32_t lanes;
    uint64_t mask[kMaxLanes];
};

constexpr int kAddsPerRound = 8;

constexpr int kMaxLevels = 4;

struct Kernels {
    const char* name;
    int level;  // its number, below kMaxLevels
    int lanes;  // a block has 64 * lanes codes

    // Writes to index/distance the rows among the first n (in order) whose distance to `query` is
    // at most `bound`; returns how many. Both arrays have room for n.
    int (*rows)(const uint64_t* codes, int n, int words, const uint64_t* query, int bound,
                uint32_t* index, uint16_t* distance);

    // As many full adds of planes as the vector units can do, and nothing else, to compare `fold`
    // with: rounds * kAddsPerRound. Returns something that depends on all of them.
    uint64_t (*full_adds)(int rounds);
    // What bounds the fold of one word, in the time of full adds: its own 42, or its loads.
    int adds_per_word;

    // Turns 64 * lanes rows into planes: words * kPlanesPerWord * lanes words, 64-byte aligned.
    void (*make_planes)(const uint64_t* codes, int words, uint64_t* planes);

    // out[0..words) for one query.
    void (*make_query)(const uint64_t* query, int words, FoldWord* out);

    // The listed queries against one block. Writes those that have at least one code within their
    // bound, in the list's order; returns how many. bound[i] < 0 skips query i.
    int (*fold)(const uint64_t* planes, int words, const FoldWord* queries, const int32_t* bound,
                const uint32_t* list, int n_list, BlockHit* hits);

    // Turns 64 * lanes rows into columns of words: of `lanes` codes after the other word after
    // word. words * 64 * lanes words, 64-byte aligned. Null, as `match`, where there is no such
    // kernel.
    void (*make_columns)(const uint64_t* codes, int words, uint64_t* columns);

    // As `fold`, of queries as they are: the listed ones of an array of rows.
    int (*match)(const uint64_t* columns, int words, const uint64_t* const* queries,
                 const int32_t* bound, const uint32_t* list, int n_list, BlockHit* hits);

    // The nearest code of a block to each of n queries, among those in `valid` (a mask as
    // BlockHit's, not empty): its distance, and its place in the block.
    void (*nearest)(const uint64_t* planes, int words, const FoldWord* queries, int nq,
                    const uint64_t* valid, uint16_t* distance, uint16_t* place);

    // out[i]: distance of the i-th of n rows to `query`.
    void (*distances)(const uint64_t* codes, int n, int words, const uint64_t* query,
                      uint16_t* out);

    // The k-th smallest of n values below 2^15, n >= k >= 1.
    int (*kth_smallest)(const uint16_t* values, int n, int k);

    // Sets bit i of `need` where some distance in [from, to] is within bound[i] of center[i].
    void (*select)(const uint16_t* center, const uint16_t* bound, int n, uint16_t from, uint16_t to,
                   uint64_t* need);
};

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAvx512Vpopcntdq;
extern const Kernels kAvx512VpopcntdqAmd;  // the same level, planes added up in another way
#elif defined(__aarch64__)
extern const Kernels kNeon;
#endif

// The levels this processor runs, slowest first.
std::vector<const Kernels*> available();
// The level every search uses, process-wide: the fastest until set_active names another.
const Kernels& active();
bool set_active(const std::string& name);  // false: no such level here

}  // namespace dmih::simd
