// Sections in memory, read or mapped, and what segments are made of them.
#pragma once

#include <map>
#include <tuple>

#include "storage.hpp"

namespace dmih {

// Sections by name. Those of a file that is read are in here if their checksum was right.
class Pieces {
public:
    void put(const SectionEntry& entry, std::shared_ptr<const void> owner, const uint8_t* data) {
        // Of several with one name the first.
        pieces_.emplace(Key{entry.tag, entry.segment, entry.table},
                        Piece{std::move(owner), data, entry.size});
    }

    // A view of `count` elements; false where the section is not there or not as long.
    template <class T>
    bool get(Tag tag, uint32_t segment, uint32_t table, uint64_t count, Buffer<T>& out) const {
        const auto at = pieces_.find({tag, segment, table});
        if (at == pieces_.end() || at->second.size != count * sizeof(T)) return false;
        out = Buffer<T>(at->second.owner, reinterpret_cast<const T*>(at->second.data),
                        static_cast<size_t>(count));
        return true;
    }

    // Of all of it.
    template <class T>
    bool get(Tag tag, uint32_t segment, Buffer<T>& out) const {
        const auto at = pieces_.find({tag, segment, 0});
        return at != pieces_.end() && get(tag, segment, 0, at->second.size / sizeof(T), out);
    }

private:
    using Key = std::tuple<Tag, uint32_t, uint32_t>;
    struct Piece {
        std::shared_ptr<const void> owner;
        const uint8_t* data;
        uint64_t size;
    };
    std::map<Key, Piece> pieces_;
};

// Segments out of sections. Read in full they are compared with the codes, so that answers are
// right whatever the file says; mapped, only what is small is looked at, and the rest is checked
// where it is used (damage.hpp).
class Assembler {
public:
    Assembler(const Contents& contents, const Pieces& pieces, bool mapped, const Control& control);

    // Where it has the bits of rows; null: as codes have them.
    const std::shared_ptr<const Partition>& partition() const { return partition_; }
    // Whether the file ought to have one, and has none that makes sense.
    bool lacks_partition() const { return partitioned_ && partition_ == nullptr; }
    // Makes the codes, which have been read, rows.
    void arrange_bits();
    // As the file lists them. Empty where that makes no sense, and where there are none.
    std::vector<PartEntry> parts() const;
    // Null where anything is missing or wrong.
    std::unique_ptr<Segment> segment(const PartEntry& part, uint32_t number) const;
    // Of its codes alone, which are then searched by scans.
    std::unique_ptr<Segment> plain(const PartEntry& part) const;
    // The rows of n ids: a view, where the file has them.
    Buffer<uint64_t> rows(uint64_t first, uint64_t n) const;
    // Of all ids, as they are in the file.
    const uint64_t* codes() const { return codes_->data(); }

private:
    std::unique_ptr<Segment> empty(const PartEntry& part) const;
    bool gather(const PartEntry& part, Segment& out) const;
    bool find_map(const PartEntry& part, uint32_t number, IdMap& map) const;
    bool find_clusters(uint32_t number, Segment& out) const;
    bool find_tables(const PartEntry& part, uint32_t number, Segment& out) const;
    bool find_front(uint32_t number, Segment& out) const;

    const int d_;
    const size_t words_;
    const Mode mode_;
    const uint64_t ntotal_;
    const Pieces& pieces_;
    const bool mapped_;
    const Control& control_;
    std::shared_ptr<Buffer<uint64_t>> codes_;  // what views of them own
    bool partitioned_;                         // whether it ought to have a partition
    std::shared_ptr<const Partition> partition_;
};

}  // namespace dmih
