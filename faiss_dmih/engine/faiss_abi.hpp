// The part of FAISS's binary interface that IndexDMIH is derived from. FAISS's wheels carry
// libfaiss.so but no headers, so the few classes are declared here: members and virtual functions
// in the order FAISS 1.14 and 1.15 have them. `faiss_dmih/_abi_check.py` verifies that order
// against the library that is loaded, before this module is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <unordered_set>
#include <vector>

namespace faiss {

using idx_t = int64_t;
enum MetricType { METRIC_INNER_PRODUCT = 0, METRIC_L2 = 1 };
enum NumericType { Float32, Float16, UInt8, Int8 };

struct IDSelector {
    virtual bool is_member(idx_t id) const = 0;
    virtual ~IDSelector() = default;
};

// The selectors whose members are read instead of asked about. Told by name: most have no exported
// typeinfo. (Of a Batch's, Python sees only the last two: _abi_check.py tells by these that `set`
// has the size it has here.)
struct IDSelectorRange : IDSelector {
    static constexpr char kName[] = "N5faiss15IDSelectorRangeE";
    idx_t imin, imax;
};

struct IDSelectorArray : IDSelector {
    static constexpr char kName[] = "N5faiss15IDSelectorArrayE";
    size_t n;
    const idx_t* ids;
};

struct IDSelectorBatch : IDSelector {
    static constexpr char kName[] = "N5faiss15IDSelectorBatchE";
    std::unordered_set<idx_t> set;
    std::vector<uint8_t> bloom;
    int nbits;
    idx_t mask;
};

struct IDSelectorBitmap : IDSelector {
    static constexpr char kName[] = "N5faiss16IDSelectorBitmapE";
    size_t n;  // bytes
    const uint8_t* bitmap;
};

struct IDSelectorAll : IDSelector {
    static constexpr char kName[] = "N5faiss13IDSelectorAllE";
};

struct IDSelectorNot : IDSelector {
    static constexpr char kName[] = "N5faiss13IDSelectorNotE";
    const IDSelector* sel;
};

struct IDSelectorAnd : IDSelector {
    static constexpr char kName[] = "N5faiss13IDSelectorAndE";
    const IDSelector *lhs, *rhs;
};

struct IDSelectorOr : IDSelector {
    static constexpr char kName[] = "N5faiss12IDSelectorOrE";
    const IDSelector *lhs, *rhs;
};

struct IDSelectorXOr : IDSelector {
    static constexpr char kName[] = "N5faiss13IDSelectorXOrE";
    const IDSelector *lhs, *rhs;
};

struct IDSelectorTranslated : IDSelector {  // an IndexBinaryIDMap's
    static constexpr char kName[] = "N5faiss20IDSelectorTranslatedE";
    const std::vector<int64_t>* id_map;  // a reference in FAISS
    const IDSelector* sel;
};

struct SearchParameters {
    IDSelector* sel = nullptr;
    virtual ~SearchParameters() = default;
};

struct RangeSearchResult {
    size_t nq;
    size_t* lims;   // nq + 1
    idx_t* labels;  // lims[nq], once allocated
    float* distances;
    size_t buffer_size;
    virtual void do_allocation();
    virtual ~RangeSearchResult();
};

struct FaissException : public std::exception {
    explicit FaissException(const std::string& msg);
    const char* what() const noexcept override;
    std::string msg;
};

struct InterruptCallback {
    static void check();
};

struct IndexBinary {
    int d = 0;
    int code_size = 0;
    idx_t ntotal = 0;
    bool verbose = false;
    bool is_trained = true;
    MetricType metric_type = METRIC_L2;

    explicit IndexBinary(idx_t d = 0, MetricType metric = METRIC_L2);
    virtual ~IndexBinary();
    virtual void train(idx_t n, const uint8_t* x);
    virtual void train_ex(idx_t n, const void* x, NumericType type) { train(n, bytes_of(x, type)); }
    virtual void add(idx_t n, const uint8_t* x) = 0;
    virtual void add_ex(idx_t n, const void* x, NumericType type) { add(n, bytes_of(x, type)); }
    virtual void add_with_ids(idx_t n, const uint8_t* x, const idx_t* xids);
    virtual void add_with_ids_ex(idx_t n, const void* x, NumericType type, const idx_t* xids) {
        add_with_ids(n, bytes_of(x, type), xids);
    }
    virtual void search(idx_t n, const uint8_t* x, idx_t k, int32_t* distances, idx_t* labels,
                        const SearchParameters* params = nullptr) const = 0;
    virtual void search_ex(idx_t n, const void* x, NumericType type, idx_t k, int32_t* distances,
                           idx_t* labels, const SearchParameters* params = nullptr) const {
        search(n, bytes_of(x, type), k, distances, labels, params);
    }
    virtual void range_search(idx_t n, const uint8_t* x, int radius, RangeSearchResult* result,
                              const SearchParameters* params = nullptr) const;
    virtual void reset() = 0;
    virtual size_t remove_ids(const IDSelector& sel);
    virtual void reconstruct(idx_t key, uint8_t* recons) const;
    virtual void reconstruct_n(idx_t i0, idx_t ni, uint8_t* recons) const;
    virtual void search_and_reconstruct(idx_t n, const uint8_t* x, idx_t k, int32_t* distances,
                                        idx_t* labels, uint8_t* recons,
                                        const SearchParameters* params = nullptr) const;
    virtual void merge_from(IndexBinary& other, idx_t add_id = 0);
    virtual void check_compatible_for_merge(const IndexBinary& other) const;
    virtual size_t sa_code_size() const;
    virtual void add_sa_codes(idx_t n, const uint8_t* x, const idx_t* xids);

private:
    // The _ex functions are inline in FAISS and hence not exported: these are ours.
    static const uint8_t* bytes_of(const void* x, NumericType type) {
        if (type != UInt8) throw FaissException("binary codes are uint8, got another numeric type");
        return static_cast<const uint8_t*>(x);
    }
};

}  // namespace faiss
