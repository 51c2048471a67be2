// Growth and storage; search.cpp has the searches.
#include "index.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>

#include "probe.hpp"
#include "stats.hpp"

namespace dmih {
namespace {

// A new segment swallows its elders while they are at most this many times its size, so that sizes
// fall by more than that from one segment to the next: few segments to search, and a code is
// rebuilt O(log n) times.
constexpr uint64_t kMergeRatio = 5;
// Segments with fewer distinct codes are not worth clusters: a scan of them is a few microseconds.
constexpr uint32_t kClustered = 8192;
constexpr uint64_t kMaxCodes = 0xFFFFFFFF;

// What probing an item costs on this segment, memory misses included.
double measure_item_ns(const Segment& segment) {
    const Part part{0, segment.base, segment.slots, segment.words, segment.codes.data(), &segment};
    const uint32_t queries = std::min<uint32_t>(segment.slots, 32);
    std::vector<uint64_t> query(static_cast<size_t>(segment.words));
    const Control control;
    Stats unused;  // these are not the user's queries
    Prober<RangeCollector> prober(part, control, unused);
    double best = 1e300;
    for (int round = 0; round < 3; ++round) {  // the first one finds everything out of the caches
        double items = 0;
        const auto start = std::chrono::steady_clock::now();
        for (uint32_t i = 0; i < queries; ++i) {
            const uint64_t slot =
                uint64_t{i} * segment.slots / queries + segment.slots / queries / 2;
            std::copy_n(part.code(static_cast<uint32_t>(slot)), segment.words, query.begin());
            // A near neighbour, so that the first rings are probed and little is collected.
            const size_t steps =
                std::min<size_t>(segment.tables.size() + 1, segment.front.steps.size());
            RangeCollector collector(static_cast<int>(steps) - 1);
            prober.run(query.data(), ProbeLimits{}, collector, false);
            items += segment.front.items[steps];
        }
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        best = std::min(best, taken.count() * 1e9 / items);
    }
    return best;
}

bool same(const std::shared_ptr<const Partition>& a, const std::shared_ptr<const Partition>& b) {
    return a == b || (a != nullptr && b != nullptr && *a == *b);
}

}  // namespace

Index::Index(Options options) : options_(std::move(options)), words_(words_for(options_.d)) {}

double Segment::item_ns() const {
    std::call_once(measured_, [this] { item_ns_ = measure_item_ns(*this); });
    return item_ns_;
}

void Segment::take_item_ns(const Segment& other) {
    std::call_once(measured_, [&] { item_ns_ = other.item_ns(); });
}

const Buffer<uint32_t>& Segment::slots_by_id() const {
    std::call_once(listed_, [this] {
        slots_by_id_ = dmih::slots_by_id(map, n, Control());
        slots_by_id_bytes_.store(slots_by_id_.bytes(), std::memory_order_relaxed);
    });
    return slots_by_id_;
}

void Segment::copy_rows(uint64_t* out, const Control& control) const {
    for (uint32_t slot = 0; slot < slots; ++slot) {
        control.poll(slot);
        const uint64_t* const code = codes.data() + size_t(slot) * words;
        if (map.ids.empty()) {
            std::copy_n(code, words, out + size_t(slot) * words);
            continue;
        }
        const auto [begin, end] = map.list(slot);
        for (uint32_t i = begin; i < end; ++i)
            std::copy_n(code, words, out + size_t(map.ids[i]) * words);
    }
}

Index::Change::Change(Index& index, const Control& control)
    : index_(index), visit_(index.gate_, Gate::Visit::kAlone, control) {
    index.check_may_change();
}

void Index::check_may_change() const {
    if (mapped())
        throw std::runtime_error(
            "this index is mapped from a file and cannot be changed: its copy() can");
}

Index::Change::~Change() {
    ++index_.version_;
    if (index_.ntotal_ != nullptr) *index_.ntotal_ = static_cast<int64_t>(index_.size());
}

void Index::add(uint64_t n, const uint8_t* codes, const Control& control) {
    const Change change(*this, control);
    const auto write = [&](uint64_t* rows) {
        constexpr uint64_t kChunk = 1 << 16;
        const size_t words = static_cast<size_t>(words_), bytes = static_cast<size_t>(code_size());
        for (uint64_t at = 0; at < n; at += kChunk) {
            control.poll();
            to_rows(codes + at * bytes, std::min(kChunk, n - at), rows + at * words);
        }
    };
    append(n, write, control);
}

void Index::merge(Index& other, const Control& control) {
    // Two that are merged into each other at once must not wait for each other.
    const bool first = std::less<>()(this, &other);
    const Change one(first ? *this : other, control), two(first ? other : *this, control);
    if (size() == 0 && options_ == other.options_ && same(partition_, other.partition_)) {
        segments_.swap(other.segments_);
        std::swap(tail_, other.tail_);
        std::swap(tail_base_, other.tail_base_);
        std::swap(tail_size_, other.tail_size_);
    } else {
        append(
            other.size(),
            [&](uint64_t* rows) {
                other.copy_rows(0, nullptr, rows, control);
                change_order(other.partition_.get(), partition_.get(), rows, other.size(), words_,
                             control);
            },
            control);
    }
    other.clear();
}

// n more codes, whose rows write() puts where they are to be.
void Index::append(uint64_t n, const std::function<void(uint64_t* rows)>& write,
                   const Control& control) {
    if (n > kMaxCodes - size())
        throw std::length_error("an index holds at most 4294967295 codes, got " +
                                std::to_string(size()) + " + " + std::to_string(n) +
                                ": spread them over faiss.IndexBinaryShards");
    if (n == 0) return;
    const size_t words = static_cast<size_t>(words_);
    if (tail_size_ + n <= kTail) {
        if (tail_.empty()) tail_ = Buffer<uint64_t>(kTail * words);
        write(tail_.data() + tail_size_ * words);
        tail_size_ += static_cast<uint32_t>(n);
        return;
    }
    uint64_t fresh = tail_size_ + n;
    size_t keep = segments_.size();
    while (keep > 0 && segments_[keep - 1]->n <= kMergeRatio * fresh) fresh += segments_[--keep]->n;
    const int64_t base = static_cast<int64_t>(size() + n - fresh);
    Buffer<uint64_t> rows(fresh * words);
    copy_rows(keep, nullptr, rows.data(), control);
    write(rows.data() + (fresh - n) * words);
    std::unique_ptr<Segment> segment = build(keep, base, std::move(rows), control);
    segments_.reserve(keep + 1);
    control.check();
    segments_.resize(keep);  // nothing throws from here on
    tail_base_ = static_cast<uint64_t>(segment->base) + segment->n;
    tail_size_ = 0;
    segments_.push_back(std::move(segment));
}

void Index::compact(const Control& control) {
    const Change change(*this, control);
    if (size() == 0 || (segments_.size() == 1 && tail_size_ == 0)) return;
    Buffer<uint64_t> rows(size() * static_cast<size_t>(words_));
    copy_rows(0, nullptr, rows.data(), control);
    std::unique_ptr<Segment> segment = build(0, 0, std::move(rows), control);
    segments_.reserve(1);
    control.check();
    segments_.clear();
    tail_base_ = segment->n;
    tail_size_ = 0;
    segments_.push_back(std::move(segment));
}

void Index::repartition(std::shared_ptr<const Partition> partition, const Control& control) {
    const Change change(*this, control);
    if (same(partition_, partition)) return;
    const uint64_t n = size();
    const bool building = n > kTail;
    Buffer<uint64_t> rows((building ? n : n > 0 ? kTail : 0) * static_cast<size_t>(words_));
    copy_rows(0, nullptr, rows.data(), control);
    change_order(partition_.get(), partition.get(), rows.data(), n, words_, control);
    std::unique_ptr<Segment> segment;
    partition_.swap(partition);
    try {
        if (building) segment = build(0, 0, std::move(rows), control);
        segments_.reserve(1);
        control.check();
    } catch (...) {
        partition_.swap(partition);
        throw;
    }
    clear();  // nothing throws from here on
    if (building) {
        tail_base_ = n;
        segments_.push_back(std::move(segment));
    } else {
        tail_ = std::move(rows);
        tail_size_ = static_cast<uint32_t>(n);
    }
}

std::shared_ptr<const Partition> Index::partition(const Control& control) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    return partition_;
}

void Index::reset(const Control& control) {
    const Change change(*this, control);
    clear();
}

void Index::clear() noexcept {
    segments_.clear();
    tail_ = Buffer<uint64_t>();
    tail_base_ = 0;
    tail_size_ = 0;
}

State Index::state(const Control& control) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    return {size(), version_};
}

// The rows of segments_[first_segment..] and of the tail, but for those of the ids in `gone`.
void Index::copy_rows(size_t first_segment, const Bits* gone, uint64_t* out,
                      const Control& control) const {
    const size_t words = static_cast<size_t>(words_);
    const auto stays = [&](uint64_t id) { return gone == nullptr || !(*gone)[id]; };
    for (size_t s = first_segment; s < segments_.size(); ++s) {
        const Segment& old = *segments_[s];
        if (gone == nullptr) {
            old.copy_rows(out, control);
            out += old.n * words;
            continue;
        }
        const Buffer<uint32_t> slot_of = slots_by_id(old.map, old.n, control);
        for (uint32_t i = 0; i < old.n; ++i) {
            control.poll(i);
            if (!stays(static_cast<uint64_t>(old.base) + i)) continue;
            const uint32_t slot = slot_of.empty() ? i : slot_of[i];
            out = std::copy_n(old.codes.data() + slot * words, words, out);
        }
    }
    for (uint32_t i = 0; i < tail_size_; ++i)
        if (stays(tail_base_ + i)) out = std::copy_n(tail_.data() + i * words, words, out);
}

// One segment of these rows, which are to follow segments_[0..first_segment).
std::unique_ptr<Segment> Index::build(size_t first_segment, int64_t base, Buffer<uint64_t> rows,
                                      const Control& control) const {
    uint64_t spent = 0;
    for (size_t s = 0; s < first_segment; ++s)
        for (const Table& table : segments_[s]->tables) spent += table.bytes();
    return build_of(base, std::move(rows), spent, control);
}

// One segment of these rows. `spent`: bytes of the tables of the others.
std::unique_ptr<Segment> Index::build_of(int64_t base, Buffer<uint64_t> rows, uint64_t spent,
                                         const Control& control) const {
    auto segment = std::make_unique<Segment>();
    segment->base = base;
    segment->n = static_cast<uint32_t>(rows.size() / static_cast<size_t>(words_));
    segment->built_for = segment->n;
    segment->words = words_;
    segment->map.slots = segment->n;
    if (options_.mode == Mode::Auto) arrange(*segment, rows, control);
    segment->slots = segment->map.slots;
    if (segment->codes.empty())
        segment->codes = std::move(rows);
    else
        rows = Buffer<uint64_t>();
    if (options_.mode == Mode::Scan) return segment;

    std::vector<int> cuts = cuts_for(segment->slots);
    // Learned lengths are those of so many substrings; more or fewer are cut evenly.
    if (partition_ != nullptr && partition_->cuts().size() == cuts.size())
        cuts = partition_->cuts();
    const std::vector<Substring> wanted = substrings_of(cuts);
    // Signatures of random codes differ in half their bits: no help to searches that end farther.
    const bool signatures = options_.mode == Mode::Auto &&
                            usual_bound(wanted.size()) < kSignatureBits / 2 &&
                            affordable(wanted, true, segment->slots, spent).size() == wanted.size();
    segment->tables =
        build_tables(affordable(wanted, signatures, segment->slots, spent), signatures, options_.d,
                     segment->codes.data(), segment->slots, control);
    find_front(*segment);
    if (options_.mode == Mode::Auto && !segment->tables.empty()) segment->item_ns();
    return segment;
}

void Index::find_front(Segment& segment) const {
    segment.front = options_.mode == Mode::Mih
                        ? round_robin_front(segment.tables, segment.slots)
                        : greedy_front(segment.tables, segment.codes.data(), segment.slots, words_);
}

// Equal codes once, and near ones together.
void Index::arrange(Segment& segment, const Buffer<uint64_t>& rows, const Control& control) const {
    const size_t words = static_cast<size_t>(words_);
    segment.map = find_distinct(rows.data(), segment.n, words_, control);
    const IdMap& map = segment.map;
    if (map.slots < segment.n) {
        segment.codes = Buffer<uint64_t>(map.slots * words);
        for (uint32_t s = 0; s < map.slots; ++s) {
            control.poll(s);
            std::copy_n(rows.data() + map.ids[map.begin_of(s)] * words, words,
                        segment.codes.data() + s * words);
        }
    }
    if (map.slots < kClustered) return;
    const uint64_t* codes = segment.codes.empty() ? rows.data() : segment.codes.data();
    Buffer<uint32_t> order;
    segment.clusters = Clusters::build(codes, map.slots, words_, control, order);
    Buffer<uint64_t> arranged(map.slots * words);
    for (uint32_t s = 0; s < map.slots; ++s) {
        control.poll(s);
        std::copy_n(codes + order[s] * words, words, arranged.data() + s * words);
    }
    segment.map = reorder(segment.map, order, segment.n, control);
    segment.codes = std::move(arranged);
}

// The substrings whose tables fit the budget. The guarantee of the front holds for any subset of
// the tables: fewer find near neighbours only.
std::vector<Substring> Index::affordable(const std::vector<Substring>& substrings, bool signatures,
                                         uint32_t slots, uint64_t spent) const {
    if (!options_.memory_budget) return substrings;
    std::vector<Substring> out;
    for (const Substring& substring : substrings) {
        spent += table_bytes(substring, slots, signatures);
        if (spent > *options_.memory_budget) break;
        out.push_back(substring);
    }
    return out;
}

std::vector<Part> Index::parts() const {
    std::vector<Part> out;
    for (const auto& segment : segments_)
        out.push_back({static_cast<uint32_t>(out.size()), segment->base, segment->slots, words_,
                       segment->codes.data(), segment.get()});
    if (tail_size_ > 0)
        out.push_back({static_cast<uint32_t>(out.size()), static_cast<int64_t>(tail_base_),
                       tail_size_, words_, tail_.data(), nullptr});
    return out;
}

void Index::to_rows(const uint8_t* codes, uint64_t n, uint64_t* rows) const {
    if (partition_ == nullptr) return bytes_to_rows(codes, n, code_size(), words_, rows);
    for (uint64_t i = 0; i < n; ++i, codes += code_size(), rows += words_)
        partition_->to_row(codes, rows);
}

void Index::code_of(uint64_t id, uint8_t* code) const {
    const size_t bytes = static_cast<size_t>(code_size());
    if (mapped()) {
        std::memcpy(code, image_.rows + id * static_cast<size_t>(words_), bytes);
        return;
    }
    const auto row_of = [&] {
        if (id >= tail_base_) return tail_.data() + (id - tail_base_) * words_;
        const auto after = std::upper_bound(
            segments_.begin(), segments_.end(), static_cast<int64_t>(id),
            [](int64_t key, const std::unique_ptr<Segment>& s) { return key < s->base; });
        const Segment& segment = **(after - 1);
        const uint32_t slot = segment.slot_of(static_cast<uint32_t>(id - segment.base));
        return segment.codes.data() + size_t(slot) * words_;
    };
    if (partition_ == nullptr) {
        std::memcpy(code, row_of(), bytes);
    } else {
        uint64_t words[kMaxWords];
        partition_->to_code(row_of(), words);
        std::memcpy(code, words, bytes);
    }
}

void Index::reconstruct(uint64_t n, const int64_t* ids, uint8_t* codes,
                        const Control& control) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    for (uint64_t i = 0; i < n; ++i)
        if (ids[i] < 0 || static_cast<uint64_t>(ids[i]) >= size())
            throw std::out_of_range("id " + std::to_string(ids[i]) +
                                    " is not in [0, ntotal = " + std::to_string(size()) + ")");
    const size_t bytes = static_cast<size_t>(code_size());
    for (uint64_t i = 0; i < n; ++i, codes += bytes) {
        control.poll(i);
        code_of(static_cast<uint64_t>(ids[i]), codes);
    }
}

void Index::reconstruct_n(int64_t first, int64_t n, uint8_t* codes, const Control& control) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    const int64_t ntotal = static_cast<int64_t>(size());
    if (first < 0 || n < 0 || first > ntotal || n > ntotal - first)
        throw std::out_of_range(std::to_string(n) + " ids from " + std::to_string(first) +
                                " on are not in [0, ntotal = " + std::to_string(ntotal) + ")");
    const size_t bytes = static_cast<size_t>(code_size());
    for (int64_t id = first; id < first + n; ++id, codes += bytes) {
        control.poll(static_cast<uint64_t>(id));
        code_of(static_cast<uint64_t>(id), codes);
    }
}

std::vector<int> Index::cuts_for(uint64_t n) const {
    if (!options_.cuts.empty()) return options_.cuts;
    return options_.mode == Mode::Mih ? default_cuts(options_.d, n) : cheapest_cuts(options_.d, n);
}

std::vector<int> Index::cuts_in_use(const Control& control) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    std::vector<int> cuts;
    if (!segments_.empty())
        for (const Table& table : segments_.front()->tables) cuts.push_back(table.substring.bits);
    return cuts;
}

MemoryUsage Index::memory_usage(const Control& control) const {
    const Gate::Visit visit(gate_, Gate::Visit::kShared, control);
    MemoryUsage usage;
    for (const auto& segment : segments_) {
        usage.codes += segment->codes.bytes();
        usage.ids += segment->map.bytes() + segment->slots_by_id_bytes();
        usage.clusters += segment->clusters.bytes();
        for (const Table& table : segment->tables) usage.tables += table.bytes();
    }
    usage.tail = tail_.bytes();
    return usage;
}

}  // namespace dmih
