// The engine without Python and FAISS, for sanitizers: threads that search an index while others
// change it. Built and run by tests/test_sanitizers.py, and longer by `make tsan` and `make asan`.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "index.hpp"

using namespace dmih;

namespace {

constexpr int kBits = 64;
constexpr uint64_t kQueries = 40, kK = 5;

std::vector<uint64_t> codes(uint64_t n, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<uint64_t> out(n);
    for (uint64_t& code : out) code = random() & (seed % 2 == 0 ? ~uint64_t{0} : 0x0F0F0F0FFFull);
    return out;
}

const uint8_t* bytes(const std::vector<uint64_t>& rows) {
    return reinterpret_cast<const uint8_t*>(rows.data());
}

void expect(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::abort();
}

// Every answer is ordered, and of the index as it is at some moment.
void search(const Index& index, const std::vector<uint64_t>& queries, uint64_t seed, int threads) {
    const Control control(threads);
    std::vector<int32_t> D(kQueries * kK);
    std::vector<int64_t> I(kQueries * kK);
    const uint64_t nq = seed % 3 == 0 ? 1 : kQueries;
    Bits some;
    Filter filter;
    const Filter* which = nullptr;
    if (seed % 4 == 1) {
        const State state = index.state(control);
        some = Bits(state.size);
        for (uint64_t id = 0; id < state.size; id += 1 + seed % 50) some.set(id);
        filter = {&some, nullptr, state.version};
        which = &filter;
    }
    try {
        index.search(nq, bytes(queries), kK, D.data(), I.data(), which, control,
                     seed % 5 == 2 ? 300 : 0);
        for (uint64_t q = 0; q < nq; ++q)
            for (uint64_t i = q * kK + 1; i < (q + 1) * kK; ++i)
                expect(D[i - 1] < D[i] || (D[i - 1] == D[i] && (I[i - 1] < I[i] || I[i] == -1)),
                       "order");
        const RangeResults found = index.range_search(nq, bytes(queries), 9, which, control);
        expect(found.ids.size() == found.lims[nq], "lims");
    } catch (const Index::Outdated&) {
    }
}

// Null now and then.
std::shared_ptr<const Partition> any_partition(uint64_t seed) {
    if (seed % 3 == 0) return nullptr;
    std::vector<int> order(kBits);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    return std::make_shared<const Partition>(order, std::vector<int>(4, kBits / 4));
}

void change(Index& index, Index& other, uint64_t seed) {
    const Control control(2);
    const std::vector<uint64_t> more = codes(seed % 7 == 0 ? 9000 : 300, seed);
    switch (seed % 7) {
        case 0:
        case 1:
        case 2: index.add(more.size(), bytes(more), control); break;
        case 3: {
            const auto thirds = [&](const State& state) {
                Selection gone{Bits(state.size), state.version};
                for (uint64_t id = seed % 3; id < state.size; id += 3) gone.ids.set(id);
                return gone;
            };
            index.remove(thirds, control);
            break;
        }
        case 4:
            other.add(more.size(), bytes(more), control);
            index.merge(other, control);
            break;
        case 5: index.repartition(any_partition(seed), control); break;
        default:
            if (seed % 5 == 0)
                index.reset(control);
            else
                index.compact(control);
    }
}

void hammer(Mode mode, double seconds) {
    Options options;
    options.d = kBits;
    options.mode = mode;
    Index index(options), other(options);
    const Control control(2);
    const std::vector<uint64_t> first = codes(20000, 2), queries = codes(kQueries, 4);
    index.add(first.size(), bytes(first), control);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    std::atomic<uint64_t> seed{1}, searches{0}, changes{0};
    const auto while_time = [&](auto work) {
        do work(seed.fetch_add(1));
        while (std::chrono::steady_clock::now() < end);
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            while_time([&](uint64_t s) {
                search(index, queries, s, 1 + t);
                searches.fetch_add(1);
            });
        });
    for (int t = 0; t < 2; ++t)
        threads.emplace_back([&] {
            while_time([&](uint64_t s) {
                change(index, other, s);
                changes.fetch_add(1);
            });
        });
    threads.emplace_back([&] {
        while_time([&](uint64_t) {
            index.memory_usage(control);
            index.cuts_in_use(control);
            index.partition(control);
            uint8_t code[kBits / 8];
            const int64_t id = 0;
            try {
                index.reconstruct(1, &id, code, control);
            } catch (const std::out_of_range&) {
            }
        });
    });
    for (std::thread& thread : threads) thread.join();
    expect(searches > 0 && changes > 0, "both kinds of threads had their turn");
    std::printf("mode %d: %llu searches, %llu changes\n", static_cast<int>(mode),
                static_cast<unsigned long long>(searches),
                static_cast<unsigned long long>(changes));
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 1;
    for (Mode mode : {Mode::Auto, Mode::Mih, Mode::Scan}) hammer(mode, seconds);
    std::puts("all right");
}
