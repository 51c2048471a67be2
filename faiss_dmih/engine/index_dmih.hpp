// IndexDMIH as FAISS sees it: the engine behind faiss::IndexBinary's virtual functions.
#pragma once

#include "faiss_abi.hpp"
#include "index.hpp"

namespace dmih {

// With FAISS's number of threads, stopped by what stops FAISS's own searches.
Control faiss_control();

class IndexDMIH : public faiss::IndexBinary {
public:
    explicit IndexDMIH(Options options);

    void train(faiss::idx_t n, const uint8_t* x) override;
    void add(faiss::idx_t n, const uint8_t* x) override;
    void search(faiss::idx_t n, const uint8_t* x, faiss::idx_t k, int32_t* distances,
                faiss::idx_t* labels, const faiss::SearchParameters* params) const override;
    void range_search(faiss::idx_t n, const uint8_t* x, int radius,
                      faiss::RangeSearchResult* result,
                      const faiss::SearchParameters* params) const override;
    void reset() override;
    void reconstruct(faiss::idx_t key, uint8_t* recons) const override;
    void reconstruct_n(faiss::idx_t i0, faiss::idx_t ni, uint8_t* recons) const override;

    void compact();
    // After the engine has been filled from a file.
    void filled() { ntotal = static_cast<faiss::idx_t>(engine_.size()); }
    Index& engine() { return engine_; }

private:
    void check_ids(faiss::idx_t first, faiss::idx_t n) const;

    Index engine_;
};

}  // namespace dmih
