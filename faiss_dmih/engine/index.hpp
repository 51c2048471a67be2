// The index: parts, growth and removal, and the planner that picks an engine per query and part.
//
// Everything may be called from any thread: searches run side by side, whatever changes the index
// waits for them and runs alone (gate.hpp).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "bits.hpp"
#include "gate.hpp"
#include "parallel.hpp"
#include "part.hpp"
#include "partition.hpp"

namespace dmih {

enum class Mode {
    Auto,  // distinct codes, tables, scan, and the planner over them
    Mih,   // plain multi-index hashing as in the papers: round robin, equal codes kept apart
    Scan,  // the scan alone
};

// For tests and ablations: which engines the planner of Mode::Auto may use.
enum class Engine { Planned, Scan, Probe };

struct Options {
    int d = 0;
    Mode mode = Mode::Auto;
    std::vector<int> cuts;                  // empty: chosen from the number of codes
    std::optional<uint64_t> memory_budget;  // bytes of tables

    bool operator==(const Options& other) const {
        return d == other.d && mode == other.mode && cuts == other.cuts &&
               memory_budget == other.memory_budget;
    }
};

// Codes of recent adds are only scanned. Few enough that scanning them costs a lone query about as
// much as probing a segment (a query of a batch a third of it).
constexpr uint32_t kTail = 8192;

// Ids mean something in one state of the index: which one, its `version` tells.
struct State {
    uint64_t size, version;
};

struct Selection {
    Bits ids;  // of the index's size
    uint64_t version;
};

struct MemoryUsage {
    uint64_t codes = 0, ids = 0, clusters = 0, tables = 0, tail = 0;
};

// The file that an index is mapped from, or the part of one.
struct Image {
    std::shared_ptr<const void> owner;
    const uint8_t* data = nullptr;
    size_t size = 0;
    const uint64_t* rows = nullptr;  // in id order, their bits as codes have them
};

struct RangeResults {
    std::vector<uint64_t> lims;  // nq + 1
    std::vector<int64_t> ids;    // ascending within a query
    std::vector<float> distances;
};

struct FilteredParts;
struct Workload;

class Index {
public:
    explicit Index(Options options);

    const Options& options() const { return options_; }
    int words() const { return words_; }
    int code_size() const { return options_.d / 8; }
    // Keeps *ntotal at the number of codes: nobody else may change the index meanwhile.
    void report_size_to(int64_t* ntotal) {
        ntotal_ = ntotal;
        *ntotal_ = static_cast<int64_t>(size());
    }

    // These change the index, or throw where it is mapped from a file: all or nothing, on any
    // exception it is as it was.
    void add(uint64_t n, const uint8_t* codes, const Control& control);
    // Takes away the selected ids; those after each move down. Returns how many there were.
    // `select` may use the index, and change it. It is asked a second time, when nobody can change
    // the index, if somebody has done so after the first.
    uint64_t remove(const std::function<Selection(const State&)>& select, const Control& control);
    // Takes over the codes of `other`, of the same d: they come after those that are here.
    void merge(Index& other, const Control& control);
    void reset(const Control& control);
    // Everything into one segment with tables, however small.
    void compact(const Control& control);
    // Puts bits where the partition, of codes of d bits, has them; null: as they come. What is here
    // is built anew.
    void repartition(std::shared_ptr<const Partition> partition, const Control& control);

    // Throws where it is mapped from a file.
    void check_may_change() const;

    State state(const Control& control) const;
    // Nobody changes the index while the visit lasts.
    Gate::Visit hold(const Control& control) const {
        return Gate::Visit(gate_, Gate::Visit::kShared, control);
    }
    // A search whose filter is one of ids throws Outdated if the index has changed since the ids
    // were selected.
    struct Outdated : std::exception {};

    // D and I as IndexBinaryFlat gives them: ordered by (distance, id), (INT32_MAX, -1) where there
    // are fewer than k codes. max_codes > 0: the best of so many codes a query, see budget.hpp.
    // `codes`, if it is not null, gets those of I, bytes 255 for -1.
    void search(uint64_t nq, const uint8_t* queries, int64_t k, int32_t* D, int64_t* I,
                const Filter* filter, const Control& control, uint64_t max_codes = 0,
                uint8_t* codes = nullptr) const;
    // Codes at a distance < radius.
    RangeResults range_search(uint64_t nq, const uint8_t* queries, int radius, const Filter* filter,
                              const Control& control, uint64_t max_codes = 0) const;
    // The codes of n ids, which must be in [0, size): std::out_of_range otherwise.
    void reconstruct(uint64_t n, const int64_t* ids, uint8_t* codes, const Control& control) const;
    void reconstruct_n(int64_t first, int64_t n, uint8_t* codes, const Control& control) const;

    // Null: bits are as they come.
    std::shared_ptr<const Partition> partition(const Control& control) const;

    // Substring lengths of a part of n codes, as long as nothing has been learned.
    std::vector<int> cuts_for(uint64_t n) const;
    // Substring lengths of the largest part with tables; empty where there is none.
    std::vector<int> cuts_in_use(const Control& control) const;
    MemoryUsage memory_usage(const Control& control) const;
    void force_engine(Engine engine) { engine_ = engine; }
    bool mapped() const { return image_.data != nullptr; }

private:
    friend class Storage;  // storage.cpp

    // What everything that changes the index begins with: alone until the end of it, when the new
    // size is told.
    class Change {
    public:
        Change(Index& index, const Control& control);
        ~Change();
        void may_read(bool may) { visit_.may_read(may); }

    private:
        Index& index_;
        Gate::Visit visit_;
    };

    uint64_t size() const { return tail_base_ + tail_size_; }
    void clear() noexcept;
    void append(uint64_t n, const std::function<void(uint64_t* rows)>& write,
                const Control& control);
    void copy_rows(size_t first_segment, const Bits* gone, uint64_t* out,
                   const Control& control) const;
    std::unique_ptr<Segment> build_of(int64_t base, Buffer<uint64_t> rows, uint64_t spent,
                                      const Control& control) const;
    std::unique_ptr<Segment> build(size_t first_segment, int64_t base, Buffer<uint64_t> rows,
                                   const Control& control) const;
    void arrange(Segment& segment, const Buffer<uint64_t>& rows, const Control& control) const;
    void find_front(Segment& segment) const;
    std::unique_ptr<Segment> without(const Segment& old, const Bits& gone,
                                     const Control& control) const;
    std::vector<Substring> affordable(const std::vector<Substring>& substrings, bool signatures,
                                      uint32_t slots, uint64_t spent) const;
    std::vector<Part> parts() const;
    bool probes(const Part& part) const;
    template <class Collector>
    void run(const std::vector<Part>& parts, const std::vector<const uint64_t*>& queries,
             const Workload& workload, std::vector<Collector>& collectors,
             const Control& control) const;
    FilteredParts filtered(const Filter* filter, uint64_t queries, const Workload& workload,
                           bool repeatable, const Control& control) const;
    void to_rows(const uint8_t* codes, uint64_t n, uint64_t* rows) const;
    void code_of(uint64_t id, uint8_t* code) const;

    Options options_;
    int words_;
    std::shared_ptr<const Partition> partition_;
    std::atomic<Engine> engine_{Engine::Planned};
    Gate gate_;
    int64_t* ntotal_ = nullptr;
    uint64_t version_ = 0;
    std::vector<std::unique_ptr<Segment>> segments_;  // ids ascend
    Buffer<uint64_t> tail_;                           // rows of the ids from tail_base_ on
    uint64_t tail_base_ = 0;
    uint32_t tail_size_ = 0;
    Image image_;  // none, if the index is in memory
};

}  // namespace dmih
