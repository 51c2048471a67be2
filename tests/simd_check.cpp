// Compares every scan kernel of an instruction set with plain loops, on random and on adversarial
// codes. It needs the kernels' files and nothing else, so it runs wherever they do, be it emulated.
//
//   simd_check             the names of the levels that it can check here
//   simd_check check NAME  exit status 0 if all answers of that level are right
//   simd_check time NAME   nanoseconds of the kernels for lone queries
//
// All arrays end where their memory ends: whoever reads or writes past them is caught in the act.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "simd/kernels.hpp"

#if defined(__x86_64__)
namespace dmih::simd {  // simd_emulated.cpp
int rows_emulated(const uint64_t*, int, int, const uint64_t*, int, uint32_t*, uint16_t*);
void distances_emulated(const uint64_t*, int, int, const uint64_t*, uint16_t*);
int match_emulated(const uint64_t*, int, const uint64_t* const*, const int32_t*, const uint32_t*,
                   int, BlockHit*);
}  // namespace dmih::simd
#endif

namespace {

using dmih::simd::BlockHit;
using dmih::simd::FoldWord;
using dmih::simd::Kernels;

template <class T>
class Fenced {
public:
    explicit Fenced(size_t n) : n_(n) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t room = (n * sizeof(T) + page - 1) / page * page;
        bytes_ = room + page;
        void* at =
            mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) std::abort();
        start_ = static_cast<char*>(at);
        if (mprotect(start_ + room, page, PROT_NONE) != 0) std::abort();
        data_ = reinterpret_cast<T*>(start_ + room - n * sizeof(T));
    }
    explicit Fenced(const std::vector<T>& from) : Fenced(from.size()) {
        std::copy(from.begin(), from.end(), data_);
    }
    Fenced(const Fenced&) = delete;
    Fenced& operator=(const Fenced&) = delete;
    ~Fenced() { munmap(start_, bytes_); }
    T* data() { return data_; }
    size_t size() const { return n_; }
    T& operator[](size_t i) { return data_[i]; }

private:
    size_t n_, bytes_;
    char* start_;
    T* data_;
};

uint64_t random_word() {
    static uint64_t state = 2026;
    uint64_t x = state += 0x9E3779B97F4A7C15ull;  // splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

int below(int n) {
    return static_cast<int>(random_word() % static_cast<uint64_t>(n));
}

using Code = std::vector<uint64_t>;

Code random_code(int words) {
    Code code(static_cast<size_t>(words));
    for (uint64_t& word : code) word = random_word();
    return code;
}

Code complement(Code code) {
    for (uint64_t& word : code) word = ~word;
    return code;
}

int plain_distance(const uint64_t* a, const uint64_t* b, int words) {
    static const std::array<int, 256> ones = [] {
        std::array<int, 256> table{};
        for (size_t byte = 0; byte < 256; ++byte)
            for (int bit = 0; bit < 8; ++bit) table[byte] += (byte >> bit) & 1;
        return table;
    }();
    int h = 0;
    for (int w = 0; w < words; ++w)
        for (uint64_t x = a[w] ^ b[w]; x != 0; x >>= 8) h += ones[x & 255];
    return h;
}

enum Kind { kRandom, kEqual, kComplements, kOneBit, kLadder, kFewBits, kKinds };
const char* const kKindNames[kKinds] = {"random",  "equal",  "complements",
                                        "one bit", "ladder", "few bits"};

// n codes; the first query of a set is `first`.
std::vector<uint64_t> make_codes(Kind kind, int n, const Code& first) {
    const int words = static_cast<int>(first.size()), d = 64 * words;
    std::vector<uint64_t> codes;
    for (int i = 0; i < n; ++i) {
        Code code = first;
        const auto flip = [&](int bit) { code[bit / 64] ^= uint64_t{1} << (bit % 64); };
        switch (kind) {
            case kRandom: code = random_code(words); break;
            case kEqual: break;
            case kComplements:
                if (i % 2 == 1) code = complement(code);
                break;
            case kOneBit: flip((i * 8 + i / 8) % d); break;
            case kLadder:  // every distance from 0 to d that n codes have room for
                for (int bit = 0; bit < i * d / std::max(n - 1, 1); ++bit) flip(bit);
                break;
            default:
                code.assign(code.size(), 0);
                for (int bits = below(3); bits > 0; --bits) flip(below(d));
        }
        codes.insert(codes.end(), code.begin(), code.end());
    }
    return codes;
}

std::vector<Code> make_queries(const Code& first) {
    const int words = static_cast<int>(first.size());
    Code near = first;
    near[static_cast<size_t>(below(words))] ^= uint64_t{1} << below(64);
    return {first,
            complement(first),
            near,
            random_code(words),
            Code(first.size(), 0),
            Code(first.size(), ~uint64_t{0})};
}

// All bounds that matter: every one for short codes, for long ones those around multiples of 64
// and around the distances that occur.
std::vector<int> make_bounds(int words, const std::vector<int>& distances) {
    const int d = 64 * words;
    std::vector<int> bounds{-1, d + 1, 1 << 30};
    if (words <= 2) {
        for (int b = 0; b <= d; ++b) bounds.push_back(b);
    } else {
        for (int at : {1, 32, 64, 128, d / 4, d / 2, d - 63, d})
            for (int b : {at - 1, at, at + 1})
                if (b <= d) bounds.push_back(b);
        for (int i = 0; i < 6; ++i) {
            const int h = distances[static_cast<size_t>(below(static_cast<int>(distances.size())))];
            bounds.push_back(h);
            bounds.push_back(h - 1);
        }
    }
    return bounds;
}

class Check {
public:
    explicit Check(const Kernels& kernels) : kernels_(kernels), block_(64 * kernels.lanes) {}

    bool run() {
        const std::vector<int> sizes{0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97};
        for (words_ = 1; words_ <= 64; ++words_) {
            for (int kind = 0; kind < kKinds; ++kind) {
                kind_ = static_cast<Kind>(kind);
                for (int n : words_ <= 8 ? sizes : std::vector<int>{17, 64}) rows_and_distances(n);
                blocks();
            }
        }
        words_ = 0;
        for (int n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500})
            for (int turn = 0; turn < 200; ++turn) {
                select(n);
                if (n > 0) kth_smallest(n);
            }
        kth_smallest(40'000);
        const int number = kernels_.level;
        int with_that_number = 0;
        for (const Kernels* level : dmih::simd::available())
            with_that_number += level->level == number;
        expect(number >= 0 && number < dmih::simd::kMaxLevels && with_that_number <= 1,
               "the level's number", number, -1);
        if (wrong_ == 0) std::printf("%s: %ld answers, all right\n", kernels_.name, answers_);
        return wrong_ == 0;
    }

private:
    void expect(bool right, const std::string& kernel, int n, int bound) {
        ++answers_;
        if (right || ++wrong_ > 20) return;
        std::printf("%s: %s is wrong: %d words, codes: %s, n = %d, bound = %d\n", kernels_.name,
                    kernel.c_str(), words_, kKindNames[kind_], n, bound);
    }

    std::vector<int> plain_distances(Fenced<uint64_t>& codes, const Code& query) const {
        std::vector<int> distances;
        for (size_t at = 0; at < codes.size(); at += query.size())
            distances.push_back(plain_distance(codes.data() + at, query.data(), words_));
        return distances;
    }

    void rows_and_distances(int n) {
        const Code first = random_code(words_);
        Fenced<uint64_t> codes(make_codes(kind_, n, first));
        Fenced<uint32_t> index(static_cast<size_t>(n));
        Fenced<uint16_t> distance(static_cast<size_t>(n)), all(static_cast<size_t>(n));
        Fenced<uint64_t> query(first.size());
        for (const Code& values : make_queries(first)) {
            std::copy(values.begin(), values.end(), query.data());
            const std::vector<int> truth = plain_distances(codes, values);
            kernels_.distances(codes.data(), n, words_, query.data(), all.data());
            expect(std::equal(truth.begin(), truth.end(), all.data()), "distances", n, -1);
            for (int bound : make_bounds(words_, n > 0 ? truth : std::vector<int>{0})) {
                const int found = kernels_.rows(codes.data(), n, words_, query.data(), bound,
                                                index.data(), distance.data());
                int right = 0;
                bool same = true;
                for (int i = 0; i < n; ++i) {
                    if (truth[i] > bound) continue;
                    same &= right < found && index[right] == static_cast<uint32_t>(i) &&
                            distance[right] == truth[i];
                    ++right;
                }
                expect(same && found == right, "rows", n, bound);
            }
        }
    }

    void blocks() {
        const Code first = random_code(words_);
        Fenced<uint64_t> codes(make_codes(kind_, block_, first));
        const size_t words = static_cast<size_t>(words_), lanes = kernels_.lanes;
        Fenced<uint64_t> planes(words * dmih::simd::kPlanesPerWord * lanes);
        kernels_.make_planes(codes.data(), words_, planes.data());

        const std::vector<Code> queries = make_queries(first);
        Fenced<FoldWord> folded(queries.size() * words);
        std::vector<std::vector<int>> truth;
        std::vector<std::unique_ptr<Fenced<uint64_t>>> rows;
        std::vector<const uint64_t*> row_at;
        for (size_t q = 0; q < queries.size(); ++q) {
            rows.push_back(std::make_unique<Fenced<uint64_t>>(queries[q]));
            Fenced<uint64_t>& query = *rows.back();
            row_at.push_back(query.data());
            kernels_.make_query(query.data(), words_, folded.data() + q * words);
            truth.push_back(plain_distances(codes, queries[q]));
        }
        hits("fold", truth,
             [&](const int32_t* bound, const uint32_t* list, int n, BlockHit* found) {
                 return kernels_.fold(planes.data(), words_, folded.data(), bound, list, n, found);
             });
        nearest(planes, folded, truth);
        if (kernels_.match == nullptr) return;
        Fenced<uint64_t> columns(words * 64 * lanes);
        kernels_.make_columns(codes.data(), words_, columns.data());
        hits("match", truth,
             [&](const int32_t* bound, const uint32_t* list, int n, BlockHit* found) {
                 return kernels_.match(columns.data(), words_, row_at.data(), bound, list, n,
                                       found);
             });
    }

    // Every query meets every bound, in calls where the others have other ones.
    template <class Compare>
    void hits(const char* kernel, const std::vector<std::vector<int>>& truth, Compare compare) {
        const size_t nq = truth.size();
        const std::vector<int> bounds = make_bounds(words_, truth.back());
        Fenced<int32_t> bound(nq);
        Fenced<uint32_t> list(nq);
        Fenced<BlockHit> room(nq);
        for (size_t turn = 0; turn < bounds.size(); ++turn) {
            for (size_t q = 0; q < nq; ++q) bound[q] = bounds[(turn + 3 * q) % bounds.size()];
            std::vector<uint32_t> some;
            for (uint32_t q = 0; q < nq; ++q)
                if (turn % 4 != 0 || random_word() % 2 == 0) some.push_back(q);
            const size_t spare = nq - some.size();
            std::copy(some.begin(), some.end(), list.data() + spare);
            BlockHit* const hit = room.data() + spare;
            const int found =
                compare(bound.data(), list.data() + spare, static_cast<int>(some.size()), hit);
            int right = 0;
            for (uint32_t q : some) {
                std::vector<uint64_t> mask(static_cast<size_t>(kernels_.lanes), 0);
                uint32_t lanes = 0;
                for (int i = 0; i < block_; ++i) {
                    if (truth[q][i] > bound[q]) continue;
                    mask[i % kernels_.lanes] |= uint64_t{1} << (i / kernels_.lanes);
                    lanes |= 1u << (i % kernels_.lanes);
                }
                if (lanes == 0) continue;
                expect(right < found && hit[right].query == q && hit[right].lanes == lanes &&
                           std::equal(mask.begin(), mask.end(), hit[right].mask),
                       kernel, block_, bound[q]);
                ++right;
            }
            expect(found == right, std::string(kernel) + " (number of hits)", block_, bounds[turn]);
        }
    }

    void nearest(Fenced<uint64_t>& planes, Fenced<FoldWord>& folded,
                 const std::vector<std::vector<int>>& truth) {
        const int lanes = kernels_.lanes;
        Fenced<uint64_t> valid(static_cast<size_t>(lanes));
        Fenced<uint16_t> distance(truth.size()), place(truth.size());
        for (int turn = 0; turn < 8; ++turn) {
            std::fill_n(valid.data(), lanes, uint64_t{0});
            const int last = turn == 0 ? block_ : turn == 1 ? 1 : 1 + below(block_);
            for (int i = 0; i < block_; ++i)
                if (turn < 5 ? i < last : i == last - 1 || random_word() % 32 == 0)
                    valid[i % lanes] |= uint64_t{1} << (i / lanes);
            kernels_.nearest(planes.data(), words_, folded.data(), static_cast<int>(truth.size()),
                             valid.data(), distance.data(), place.data());
            for (size_t q = 0; q < truth.size(); ++q) {
                int least = 1 << 30;
                const auto is_valid = [&](int i) { return valid[i % lanes] >> (i / lanes) & 1; };
                for (int i = 0; i < block_; ++i)
                    if (is_valid(i)) least = std::min(least, truth[q][i]);
                expect(distance[q] == least && place[q] < block_ && is_valid(place[q]) &&
                           truth[q][place[q]] == least,
                       "nearest", last, -1);
            }
        }
    }

    void kth_smallest(int n) {
        const int most = below(2) == 0 ? 64 : (1 << 15) - 1;
        std::vector<uint16_t> sorted(static_cast<size_t>(n));
        for (uint16_t& value : sorted) value = static_cast<uint16_t>(below(most + 1));
        Fenced<uint16_t> values(sorted);
        std::sort(sorted.begin(), sorted.end());
        for (int k : {1, n, 1 + below(n)})
            expect(kernels_.kth_smallest(values.data(), n, k) == sorted[k - 1], "kth_smallest", n,
                   k);
    }

    void select(int n) {
        const int most = below(2) == 0 ? 4096 : below(2) == 0 ? 65535 : 64;
        const auto value = [&] {
            const int kind = below(8);
            return static_cast<uint16_t>(kind == 0 ? 0 : kind == 1 ? most : below(most + 1));
        };
        Fenced<uint16_t> center(static_cast<size_t>(n)), bound(static_cast<size_t>(n));
        const auto [from, to] = std::minmax({value(), value()});
        for (int i = 0; i < n; ++i) {
            center[i] = value();
            bound[i] = value();
            // On the edges: just within, just beyond.
            const int off = below(8);
            if (off < 2 && center[i] >= to) bound[i] = static_cast<uint16_t>(center[i] - to + off);
            if (off > 5 && center[i] < from)
                bound[i] = static_cast<uint16_t>(from - center[i] - (off - 6));
        }
        Fenced<uint64_t> need((static_cast<size_t>(n) + 63) / 64);
        std::vector<uint64_t> truth;
        for (size_t w = 0; w < need.size(); ++w) {
            need[w] = random_word() & random_word();
            truth.push_back(need[w]);
        }
        for (int i = 0; i < n; ++i)
            if (center[i] - bound[i] <= to && center[i] + bound[i] >= from)
                truth[i / 64] |= uint64_t{1} << (i % 64);
        kernels_.select(center.data(), bound.data(), n, from, to, need.data());
        expect(std::equal(truth.begin(), truth.end(), need.data()), "select", n, -1);
    }

    const Kernels& kernels_;
    const int block_;
    int words_ = 1;
    Kind kind_ = kRandom;
    long answers_ = 0, wrong_ = 0;
};

// The best of several turns, in nanoseconds.
template <class Work>
double ns_of(Work&& work) {
    double best = 1e300;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(400);
    do {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double, std::nano> taken =
            std::chrono::steady_clock::now() - start;
        best = std::min(best, taken.count());
    } while (std::chrono::steady_clock::now() < deadline);
    return best;
}

void time_rows(const Kernels& kernels, int words, size_t bytes) {
    constexpr int kChunk = 1024;  // the engine's
    const int n = static_cast<int>(bytes / 8) / words, d = 64 * words;
    Fenced<uint64_t> codes(static_cast<size_t>(n) * words);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = random_word();
    const Code query = random_code(words);
    std::vector<uint32_t> index(kChunk);
    std::vector<uint16_t> distance(kChunk);
    const auto rows = [&](int bound) {
        return ns_of([&] {
                   for (int at = 0; at + kChunk <= n; at += kChunk)
                       kernels.rows(codes.data() + static_cast<size_t>(at) * words, kChunk, words,
                                    query.data(), bound, index.data(), distance.data());
               }) /
               (n / kChunk * kChunk);
    };
    const double near = rows(d / 8), half = rows(d / 2);
    const double all = ns_of([&] {
                           for (int at = 0; at + kChunk <= n; at += kChunk)
                               kernels.distances(codes.data() + static_cast<size_t>(at) * words,
                                                 kChunk, words, query.data(), distance.data());
                       }) /
                       (n / kChunk * kChunk);
    std::printf(
        "%s %4d bits, %6zu KB: rows %.3f ns/code (none within), %.3f (half), distances %.3f\n",
        kernels.name, d, bytes >> 10, near, half, all);
}

void time_level(const Kernels& kernels) {
    for (int words : {1, 2, 3, 4, 8})
        for (size_t bytes : {size_t{1} << 18, size_t{1} << 28}) time_rows(kernels, words, bytes);
    constexpr int kQueries = 512;
    std::vector<uint16_t> center(kQueries), bound(kQueries);
    for (int i = 0; i < kQueries; ++i) {
        center[i] = static_cast<uint16_t>(16 + below(32));
        bound[i] = static_cast<uint16_t>(4 + below(12));
    }
    std::vector<uint64_t> need(kQueries / 64);
    const double ns =
        ns_of([&] { kernels.select(center.data(), bound.data(), kQueries, 20, 24, need.data()); });
    std::printf("%s select: %.3f ns/query\n", kernels.name, ns / kQueries);
}

std::vector<Kernels> levels_here() {
    std::vector<Kernels> levels;
    for (const Kernels* kernels : dmih::simd::available()) levels.push_back(*kernels);
#if defined(__x86_64__)
    for (const Kernels* kernels : dmih::simd::available()) {
        if (kernels != &dmih::simd::kAvx512) continue;
        Kernels emulated = dmih::simd::kAvx512VpopcntdqAmd;
        emulated.name = "emulated_vpopcntdq";
        emulated.rows = dmih::simd::rows_emulated;
        emulated.distances = dmih::simd::distances_emulated;
        emulated.match = dmih::simd::match_emulated;
        levels.push_back(emulated);
    }
#endif
    return levels;
}

}  // namespace

int main(int argc, char** argv) {
    for (const Kernels& level : levels_here()) {
        if (argc != 3) {
            std::printf("%s\n", level.name);
        } else if (std::string(argv[2]) == level.name) {
            if (std::string(argv[1]) == "check") return Check(level).run() ? 0 : 1;
            time_level(level);
            return 0;
        }
    }
    return argc == 3;
}
