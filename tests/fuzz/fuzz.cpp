// Feeds mutated files to the reader and searches what it opens. Under AddressSanitizer and
// UndefinedBehaviorSanitizer, with the coverage of the engine as a guide to what is worth keeping.
//
//     fuzz SEEDS runs N [RANDOM_SEED]     N executions
//     fuzz SEEDS make                     writes the seeds
//     fuzz FILE once                      one file, as it is
//
// A file that brings it down is left in crash.ibdm.
#include <fcntl.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "seeds.hpp"

// Of the sanitizers' runtime; GCC comes without the headers.
extern "C" {
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t),
                                              void (*on_free)(const volatile void*));
size_t __sanitizer_get_allocated_size(const volatile void*);
void __sanitizer_set_death_callback(void (*)());
void __sanitizer_cov_trace_pc();
}

namespace {

using fuzz::Bytes;
using Random = std::mt19937_64;

// Coverage: which edges the engine has gone over, by a hash of two addresses.
constexpr size_t kEdges = 1 << 16;
uint8_t covered[kEdges], seen[kEdges];
uintptr_t previous = 0;

// Memory: live bytes and their highest.
std::atomic<int64_t> live{0}, highest{0};

void on_malloc(const volatile void* pointer, size_t size) {
    (void)pointer;
    const int64_t now = live += static_cast<int64_t>(size);
    if (now > highest) highest = now;
}

void on_free(const volatile void* pointer) {
    if (pointer != nullptr) live -= static_cast<int64_t>(__sanitizer_get_allocated_size(pointer));
}

Bytes running;

void leave_crash() {
    const int file = open("crash.ibdm", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const ssize_t done = write(file, running.data(), running.size());
    std::fprintf(stderr, "crash.ibdm: %zd bytes\n", done);
}

[[noreturn]] void fail(const char* what) {
    leave_crash();
    std::fprintf(stderr, "%s\n", what);
    _exit(2);
}

void on_alarm(int) {
    fail("an execution took more than 10 s of the processor");
}

// Of the processor: a busy machine is no hang.
void limit_time(int seconds) {
    const itimerval limit{{0, 0}, {seconds, 0}};
    setitimer(ITIMER_PROF, &limit, nullptr);
}

// In pieces of any size, and nobody knows how many.
class Dripping : public dmih::Source {
public:
    Dripping(const Bytes& bytes) : bytes_(bytes) {}
    size_t read(void* out, size_t size) override {
        size = std::min(size, bytes_.size() - at_);
        if (size > 0) std::memcpy(out, bytes_.data() + at_, size);
        at_ += size;
        return size;
    }
    uint64_t left() const override { return kUnknown; }

private:
    const Bytes& bytes_;
    size_t at_ = 0;
};

struct Counts {
    uint64_t refused = 0, opened = 0, repaired = 0, mapped = 0, mapped_damaged = 0, searches = 0;
    int64_t memory = 0;  // the most that an open took
    double ratio = 0, seconds = 0;
} counts;

// The k nearest of a query, in plain loops.
std::vector<std::pair<int32_t, int64_t>> nearest(const dmih::Index& index, const uint8_t* query,
                                                 const dmih::Filter* filter, size_t k) {
    std::vector<std::pair<int32_t, int64_t>> out;
    const dmih::Control control;
    const int64_t ntotal = static_cast<int64_t>(index.state(control).size);
    Bytes code(static_cast<size_t>(index.code_size()));
    for (int64_t id = 0; id < ntotal; ++id) {
        if (filter != nullptr && !filter->contains(id)) continue;
        index.reconstruct(1, &id, code.data(), control);
        int32_t distance = 0;
        for (size_t b = 0; b < code.size(); ++b)
            distance += __builtin_popcount(static_cast<unsigned>(code[b] ^ query[b]));
        out.emplace_back(distance, id);
    }
    std::sort(out.begin(), out.end());
    out.resize(k, {INT32_MAX, -1});
    return out;
}

// `exact`: what has been read in full answers right, whatever was in the file.
void search(const dmih::Index& index, Random& random, bool exact) {
    const size_t width = static_cast<size_t>(index.code_size());
    const dmih::Control control;
    const dmih::State state = index.state(control);
    const int64_t ntotal = static_cast<int64_t>(state.size);
    const uint64_t nq = 1 + random() % 3;
    Bytes queries(nq * width);
    for (uint8_t& byte : queries) byte = static_cast<uint8_t>(random());
    if (ntotal > 0)
        index.reconstruct_n(static_cast<int64_t>(random() % state.size), 1, queries.data(),
                            control);
    const int64_t ks[] = {1, 5, ntotal + 2};
    const int64_t k = ks[random() % 3];
    std::vector<int32_t> D(nq * static_cast<uint64_t>(k));
    std::vector<int64_t> I(D.size());
    dmih::Bits odd(state.size);
    for (uint64_t id = 1; id < state.size; id += 2) odd.set(id);
    dmih::Filter selected;
    selected.ids = &odd;
    selected.version = state.version;
    const dmih::Filter* const filter = random() % 4 == 0 ? &selected : nullptr;
    ++counts.searches;
    index.search(nq, queries.data(), k, D.data(), I.data(), filter, control);
    for (size_t q = 0; exact && q < nq; ++q) {
        const auto right = nearest(index, &queries[q * width], filter, static_cast<size_t>(k));
        for (size_t i = 0; i < right.size(); ++i)
            if (right[i] != std::make_pair(D[q * right.size() + i], I[q * right.size() + i]))
                fail("an answer is wrong");
    }
    for (int64_t id : I)
        if (id < -1 || id >= ntotal) fail("an id is out of bounds");
    const int radius = static_cast<int>(random() % static_cast<uint64_t>(index.options().d + 2));
    ++counts.searches;
    const dmih::RangeResults found =
        index.range_search(nq, queries.data(), radius, filter, control);
    for (int64_t id : found.ids)
        if (id < 0 || id >= ntotal) fail("an id is out of bounds");
}

void use(dmih::Index& index, Random& random, bool mapped) {
    for (dmih::Engine engine : {dmih::Engine::Planned, dmih::Engine::Probe, dmih::Engine::Scan}) {
        index.force_engine(engine);
        try {
            search(index, random, !mapped);
        } catch (const std::runtime_error&) {  // out of bounds, found where it is used
            if (!mapped) throw;
            ++counts.mapped_damaged;
            return;
        }
    }
}

// What a reader may take is a small multiple of the file, and some megabytes.
void check_memory(int64_t before, size_t size) {
    const int64_t took = highest - before;
    counts.memory = std::max(counts.memory, took);
    counts.ratio =
        std::max(counts.ratio, static_cast<double>(took) / (static_cast<double>(size) + 1e6));
    if (took > 48 * static_cast<int64_t>(size) + (16 << 20)) {
        std::fprintf(stderr, "%zu bytes were read into %lld\n", size, static_cast<long long>(took));
        fail("an open took too much memory");
    }
}

void execute(Random& random) {
    const auto start = std::chrono::steady_clock::now();
    const uint64_t how = random() % 4;
    highest = live.load();
    const int64_t before = live;
    const dmih::Control control;
    try {
        if (how < 2) {  // mapped: of just as many bytes, so that one more is an error
            void* memory = nullptr;
            if (posix_memalign(&memory, 64, std::max<size_t>(running.size(), 1)) != 0) return;
            const std::shared_ptr<void> owner(memory, std::free);
            std::memcpy(memory, running.data(), running.size());
            dmih::MemorySource source(memory, running.size());
            const dmih::Contents contents = dmih::Storage::read_contents(source);
            dmih::Index index(contents.options);
            dmih::Storage::map(
                contents, {owner, static_cast<uint8_t*>(memory), running.size(), nullptr}, index);
            check_memory(before, running.size());
            ++counts.mapped;
            use(index, random, true);
            if (how == 1) {
                dmih::Index copy(contents.options);
                dmih::Storage::copy(index, copy, control);
                use(copy, random, false);
            }
        } else {
            dmih::MemorySource memory(running.data(), running.size());
            Dripping dripping(running);
            dmih::Source& source = how == 2 ? static_cast<dmih::Source&>(memory)
                                            : static_cast<dmih::Source&>(dripping);
            const dmih::Contents contents = dmih::Storage::read_contents(source);
            dmih::Index index(contents.options);
            const uint32_t built = dmih::Storage::read(contents, source, index, control);
            check_memory(before, running.size());
            ++counts.opened;
            counts.repaired += built > 0;
            use(index, random, false);
            if (how == 2) {  // what has been read is written, grows, and can be read again
                index.add(1, Bytes(static_cast<size_t>(index.code_size())).data(), control);
                const Bytes again = fuzz::written(index);
                dmih::MemorySource back(again.data(), again.size());
                const dmih::Contents second = dmih::Storage::read_contents(back);
                dmih::Index copy(second.options);
                if (dmih::Storage::read(second, back, copy, control) > 0)
                    fail("what was written is read with repairs");
            }
        }
    } catch (const dmih::FormatError&) {
        check_memory(before, running.size());
        ++counts.refused;
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    counts.seconds = std::max(counts.seconds, taken.count());
}

uint64_t interesting(Random& random, uint64_t old) {
    const uint64_t values[] = {0,
                               1,
                               2,
                               old + 1,
                               old - 1,
                               old * 2,
                               old / 2,
                               63,
                               64,
                               65,
                               0x7FFFFFFF,
                               0xFFFFFFFF,
                               0x80000000,
                               1ull << 33,
                               UINT64_MAX,
                               random(),
                               random() % 256,
                               random() % 65536,
                               old ^ (1ull << random() % 64)};
    return values[random() % std::size(values)];
}

template <class T>
void change(T& field, Random& random) {
    field = static_cast<T>(interesting(random, field));
}

void change_words(Bytes& bytes, size_t width, Random& random) {
    if (bytes.size() < width) return;
    const size_t at = random() % (bytes.size() / width) * width;
    uint64_t value = 0;
    std::memcpy(&value, &bytes[at], width);
    value = random() % 3 == 0 ? bytes.size() / width - random() % 3 : interesting(random, value);
    std::memcpy(&bytes[at], &value, width);
}

void mutate(fuzz::Parts& parts, const fuzz::Parts& other, Random& random) {
    auto& sections = parts.sections;
    const auto any = [&]() -> fuzz::Section& { return sections[random() % sections.size()]; };
    if (sections.empty()) return;
    const char* const tags[] = {"other", "slots", "bits", "rows"};
    switch (random() % 17) {
        case 16: parts.header.version = 1 + random() % 2; break;
        case 0: change(parts.header.d, random); break;
        case 1: change(parts.header.mode, random); break;
        case 2: change(parts.header.ntotal, random); break;
        case 3: change(parts.header.memory_budget, random); break;
        case 4:
            if (random() % 4 == 0)
                parts.cuts.push_back(1 + random() % 26);
            else if (!parts.cuts.empty())
                change(parts.cuts[random() % parts.cuts.size()], random);
            break;
        case 5:
            sections.erase(sections.begin() + static_cast<long>(random() % sections.size()));
            break;
        case 6: sections.push_back(any()); break;
        case 7: std::swap(any(), any()); break;
        case 8: any().entry.tag = dmih::tag_of(tags[random() % std::size(tags)]); break;
        case 9: change(random() % 2 == 0 ? any().entry.segment : any().entry.table, random); break;
        case 10: {
            Bytes& bytes = any().bytes;
            bytes.resize(random() % 2 == 0 ? bytes.size() + 4 * (random() % 9)
                                           : random() % (bytes.size() + 1) / 4 * 4);
            break;
        }
        case 11:
            if (!other.sections.empty())
                any().bytes = other.sections[random() % other.sections.size()].bytes;
            break;
        case 12: change_words(any().bytes, 8, random); break;
        case 13: change_words(any().bytes, 2, random); break;
        default: change_words(any().bytes, 4, random);
    }
}

// Of the bytes as a whole: lies about where sections are, cuts, noise.
void damage(Bytes& image, Random& random) {
    if (image.size() < sizeof(dmih::FileHeader)) return;
    switch (random() % 4) {
        case 0: image.resize(random() % (image.size() + 1)); break;
        case 1: image.insert(image.end(), random() % 200, uint8_t{0}); break;
        case 2: image[random() % image.size()] ^= static_cast<uint8_t>(1 << random() % 8); break;
        default: {
            // A word of the header or the section table.
            const size_t end = std::min<size_t>(image.size(), 64 + 40 * 30);
            const size_t at = random() % (end / 4) * 4;
            uint32_t word;
            std::memcpy(&word, &image[at], 4);
            change(word, random);
            std::memcpy(&image[at], &word, 4);
        }
    }
    if (random() % 8 != 0) fuzz::seal(image);
}

bool new_coverage() {
    bool fresh = false;
    for (size_t i = 0; i < kEdges; ++i) {
        fresh |= covered[i] != 0 && seen[i] == 0;
        seen[i] |= covered[i];
        covered[i] = 0;
    }
    return fresh;
}

Bytes read_whole(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

int run(const std::string& folder, uint64_t executions, uint64_t seed) {
    std::vector<fuzz::Parts> corpus;
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".ibdm") paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) corpus.push_back(fuzz::take_apart(read_whole(path)));
    if (corpus.empty()) {
        std::fprintf(stderr, "no seeds in %s\n", folder.c_str());
        return 1;
    }
    const auto start = std::chrono::steady_clock::now();
    const size_t seeds = corpus.size();
    for (uint64_t i = 0; i < executions; ++i) {
        Random random(seed * 0x9E3779B97F4A7C15ull + i);
        fuzz::Parts parts = corpus[random() % corpus.size()];
        const size_t changes = i < seeds ? 0 : random() % 5;
        for (size_t c = 0; c < changes; ++c)
            mutate(parts, corpus[random() % corpus.size()], random);
        running = fuzz::put_together(parts, random() % 16 != 0);
        if (i >= seeds && random() % 4 == 0) damage(running, random);
        limit_time(10);
        execute(random);
        limit_time(0);
        if (new_coverage() && corpus.size() < 4096) corpus.push_back(std::move(parts));
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::printf(
        "%llu executions in %.0f s, %zu in the corpus, %lld edges: %llu refused, %llu read (%llu "
        "repaired), %llu mapped (%llu found out of bounds), %llu searches; slowest %.3f s; an open "
        "took %.1f MB at most, %.1f times (file + 1 MB)\n",
        static_cast<unsigned long long>(executions), taken.count(), corpus.size(),
        static_cast<long long>(std::count_if(seen, seen + kEdges, [](uint8_t s) { return s; })),
        static_cast<unsigned long long>(counts.refused),
        static_cast<unsigned long long>(counts.opened),
        static_cast<unsigned long long>(counts.repaired),
        static_cast<unsigned long long>(counts.mapped),
        static_cast<unsigned long long>(counts.mapped_damaged),
        static_cast<unsigned long long>(counts.searches), counts.seconds,
        static_cast<double>(counts.memory) / 1e6, counts.ratio);
    return 0;
}

}  // namespace

// GCC calls this at every edge of what is compiled with -fsanitize-coverage=trace-pc.
extern "C" void __sanitizer_cov_trace_pc() {
    const uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
    covered[(here ^ previous) % kEdges] = 1;
    previous = here >> 1;
}

int main(int argc, char** argv) {
    const std::string what = argc > 2 ? argv[2] : "";
    if (what == "make") {
        for (const auto& [name, bytes] : fuzz::make_seeds())
            std::ofstream(std::string(argv[1]) + "/" + name + ".ibdm", std::ios::binary)
                .write(reinterpret_cast<const char*>(bytes.data()),
                       static_cast<std::streamsize>(bytes.size()));
        return 0;
    }
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    __sanitizer_set_death_callback(leave_crash);
    std::signal(SIGPROF, on_alarm);
    if (what == "once") {
        running = read_whole(argv[1]);
        for (uint64_t i = 0; i < 1000; ++i) {
            Random random(i);
            limit_time(10);
            execute(random);
        }
        return 0;
    }
    if (what != "runs" || argc < 4) {
        std::fprintf(stderr, "fuzz SEEDS runs N [RANDOM_SEED] | SEEDS make | FILE once\n");
        return 1;
    }
    return run(argv[1], std::stoull(argv[3]), argc > 4 ? std::stoull(argv[4]) : 1);
}
