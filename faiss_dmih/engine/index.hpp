// The index: parts, growth, and the planner that picks an engine per query and part.
//
// Searches are const and may run side by side; whatever changes the index must run alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "parallel.hpp"
#include "part.hpp"

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
};

struct MemoryUsage {
    uint64_t codes = 0, ids = 0, clusters = 0, tables = 0, tail = 0;
};

// The file that an index is mapped from, or the part of one.
struct Image {
    std::shared_ptr<const void> owner;
    const uint8_t* data = nullptr;
    size_t size = 0;
    const uint64_t* rows = nullptr;  // in id order
};

struct RangeResults {
    std::vector<uint64_t> lims;  // nq + 1
    std::vector<int64_t> ids;    // ascending within a query
    std::vector<float> distances;
};

class Index {
public:
    // Codes of recent adds are only scanned. Few enough that scanning them costs about as much as
    // probing a segment.
    static constexpr uint32_t kTail = 2048;

    explicit Index(Options options);

    const Options& options() const { return options_; }
    uint64_t size() const { return tail_base_ + tail_size_; }
    int words() const { return words_; }
    int code_size() const { return options_.d / 8; }

    // The mutators raise where the index is mapped from a file.
    // All or nothing: on any exception the index is as it was.
    void add(uint64_t n, const uint8_t* codes, const Control& control);
    void reset();
    // Everything into one segment with tables, however small.
    void compact(const Control& control);

    // D and I as IndexBinaryFlat gives them: ordered by (distance, id), (INT32_MAX, -1) where there
    // are fewer than k codes.
    void search(uint64_t nq, const uint8_t* queries, int64_t k, int32_t* D, int64_t* I,
                const Filter* filter, const Control& control) const;
    // Codes at a distance < radius.
    RangeResults range_search(uint64_t nq, const uint8_t* queries, int radius, const Filter* filter,
                              const Control& control) const;
    // The code of one id, which must be in [0, size()).
    void reconstruct(int64_t id, uint8_t* code) const;

    // Substring lengths of the largest part with tables; empty where there is none.
    std::vector<int> cuts_in_use() const;
    MemoryUsage memory_usage() const;
    void force_engine(Engine engine) { engine_ = engine; }
    bool mapped() const { return image_.data != nullptr; }

private:
    friend class Storage;  // storage.cpp

    std::unique_ptr<Segment> build(uint64_t first_segment, uint64_t n, const uint8_t* codes,
                                   const Control& control) const;
    std::unique_ptr<Segment> build_of(int64_t base, Buffer<uint64_t> rows, uint64_t spent,
                                      const Control& control) const;
    void arrange(Segment& segment, const Buffer<uint64_t>& rows, const Control& control) const;
    std::vector<Substring> affordable(const std::vector<Substring>& substrings, bool signatures,
                                      uint32_t slots, uint64_t spent) const;
    std::vector<Part> parts() const;
    bool probes(const Part& part) const;
    template <class Collector>
    void run(const std::vector<Part>& parts, const std::vector<const uint64_t*>& queries,
             const Filter* filter, int workload, std::vector<Collector>& collectors,
             const Control& control) const;
    const uint64_t* row_of(uint64_t id) const;
    void check_mutable() const;

    Options options_;
    int words_;
    Engine engine_ = Engine::Planned;
    std::vector<std::unique_ptr<Segment>> segments_;  // ids ascend
    Buffer<uint64_t> tail_;                           // rows of the ids from tail_base_ on
    uint64_t tail_base_ = 0;
    uint32_t tail_size_ = 0;
    Image image_;  // none, if the index is in memory
};

}  // namespace dmih
