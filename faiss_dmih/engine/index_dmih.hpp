// IndexDMIH as FAISS sees it: the engine behind faiss::IndexBinary's virtual functions.
#pragma once

#include "faiss_abi.hpp"
#include "index.hpp"

namespace dmih {

// With FAISS's number of threads, stopped by what stops FAISS's own searches.
Control faiss_control();

// For a search that may be approximate: at most max_codes codes are visited for a query; all that
// are needed, if it is not positive.
struct SearchParametersDMIH : faiss::SearchParameters {
    int64_t max_codes = 0;
};

class IndexDMIH : public faiss::IndexBinary {
public:
    explicit IndexDMIH(Options options);

    // Learns which bits go into which table, and builds anew what is there.
    void train(faiss::idx_t n, const uint8_t* x) override;
    void add(faiss::idx_t n, const uint8_t* x) override;
    void search(faiss::idx_t n, const uint8_t* x, faiss::idx_t k, int32_t* distances,
                faiss::idx_t* labels, const faiss::SearchParameters* params) const override;
    void range_search(faiss::idx_t n, const uint8_t* x, int radius,
                      faiss::RangeSearchResult* result,
                      const faiss::SearchParameters* params) const override;
    // Both see one state of the index.
    void search_and_reconstruct(faiss::idx_t n, const uint8_t* x, faiss::idx_t k,
                                int32_t* distances, faiss::idx_t* labels, uint8_t* recons,
                                const faiss::SearchParameters* params) const override;
    void reset() override;
    // As IndexBinaryFlat's: later ids move down.
    size_t remove_ids(const faiss::IDSelector& sel) override;
    void reconstruct(faiss::idx_t key, uint8_t* recons) const override;
    void reconstruct_n(faiss::idx_t i0, faiss::idx_t ni, uint8_t* recons) const override;
    // As IndexFlatCodes has it: the codes of `other` come after those here, and leave it empty.
    void merge_from(faiss::IndexBinary& other, faiss::idx_t add_id = 0) override;
    void check_compatible_for_merge(const faiss::IndexBinary& other) const override;
    void add_sa_codes(faiss::idx_t n, const uint8_t* x, const faiss::idx_t* xids) override;

    void reconstruct_batch(faiss::idx_t n, const faiss::idx_t* keys, uint8_t* recons) const;
    void compact();
    MemoryUsage memory_usage() const;
    std::vector<int> cuts() const;
    std::shared_ptr<const Partition> partition() const;
    void repartition(std::shared_ptr<const Partition> partition);
    // After the engine has been filled from a file.
    void filled() { engine_.report_size_to(&ntotal); }
    Index& engine() { return engine_; }

private:
    Index engine_;
};

}  // namespace dmih
