#include "selection.hpp"

#include <algorithm>
#include <cstring>
#include <typeinfo>

namespace dmih {
namespace {

// The selector as one of FAISS's kinds; null if it is another.
template <class Kind>
const Kind* as(const faiss::IDSelector& selector) {
    return std::strcmp(typeid(selector).name(), Kind::kName) == 0
               ? static_cast<const Kind*>(&selector)
               : nullptr;
}

void set_run(Bits& out, int64_t begin, int64_t end) {
    begin = std::max<int64_t>(begin, 0);
    end = std::min(end, static_cast<int64_t>(out.size()));
    for (int64_t i = begin; i < end;) {
        const int64_t to = std::min(end, (i | 63) + 1);
        const uint64_t ones = to - i == 64 ? ~uint64_t{0} : (uint64_t{1} << (to - i)) - 1;
        out.word(static_cast<uint64_t>(i) >> 6) |= ones << (i & 63);
        i = to;
    }
}

template <class Ids>
void set_each(Bits& out, const Ids& ids, size_t n, const Control& control) {
    auto id = ids;
    for (size_t i = 0; i < n; ++i, ++id) {
        control.poll(i);
        if (*id >= 0 && static_cast<uint64_t>(*id) < out.size())
            out.set(static_cast<uint64_t>(*id));
    }
}

void read(const faiss::IDSelectorBitmap& bitmap, Bits& out) {
    const size_t bytes = std::min<size_t>(bitmap.n, (out.size() + 7) / 8);
    if (bytes > 0) std::memcpy(&out.word(0), bitmap.bitmap, bytes);
    out.trim();
}

// Of what is asked for all n ids, those in `among`, or not in it: as FAISS asks the second part of
// an And or an Or.
void ask(const faiss::IDSelector& selector, Bits& out, const Control& control,
         const Bits* among = nullptr, bool in_it = true) {
    for (uint64_t id = 0; id < out.size(); ++id) {
        if (id % 64 == 0) control.poll();  // who knows how long it thinks
        if (among != nullptr && (*among)[id] != in_it) continue;
        if (selector.is_member(static_cast<faiss::idx_t>(id))) out.set(id);
    }
}

// Whether it consists of kinds known here, which may be asked from any thread and throw nothing;
// perhaps of those only that answer at once. (An Array searches all its ids.)
bool known(const faiss::IDSelector& selector, bool at_once = false) {
    using namespace faiss;
    const auto is = [at_once](const IDSelector* part) { return known(*part, at_once); };
    if (const auto* inverse = as<IDSelectorNot>(selector)) return is(inverse->sel);
    if (const auto* both = as<IDSelectorAnd>(selector)) return is(both->lhs) && is(both->rhs);
    if (const auto* any = as<IDSelectorOr>(selector)) return is(any->lhs) && is(any->rhs);
    if (const auto* one = as<IDSelectorXOr>(selector)) return is(one->lhs) && is(one->rhs);
    if (const auto* map = as<IDSelectorTranslated>(selector)) return is(map->sel);
    if (as<IDSelectorArray>(selector) != nullptr) return !at_once;
    return as<IDSelectorRange>(selector) || as<IDSelectorBatch>(selector) ||
           as<IDSelectorBitmap>(selector) || as<IDSelectorAll>(selector);
}

// Nanoseconds that read() takes, about; measured on one machine, by orders of magnitude.
double cost(const faiss::IDSelector& selector, double n) {
    using namespace faiss;
    constexpr double kId = 1, kNode = 15, kWord = 0.5, kTranslated = 5;
    const double words = kWord * n / 64;
    if (const auto* array = as<IDSelectorArray>(selector))
        return words + kId * static_cast<double>(array->n);
    if (const auto* batch = as<IDSelectorBatch>(selector))
        return words + kNode * static_cast<double>(batch->set.size());
    if (const auto* inverse = as<IDSelectorNot>(selector)) return words + cost(*inverse->sel, n);
    if (const auto* both = as<IDSelectorAnd>(selector))
        return words + cost(*both->lhs, n) + cost(*both->rhs, n);
    if (const auto* any = as<IDSelectorOr>(selector))
        return words + cost(*any->lhs, n) + cost(*any->rhs, n);
    if (const auto* one = as<IDSelectorXOr>(selector))
        return words + cost(*one->lhs, n) + cost(*one->rhs, n);
    return as<IDSelectorTranslated>(selector) ? kTranslated * n : words;
}

void read(const faiss::IDSelector& selector, Bits& out, const Control& control) {
    using namespace faiss;
    const auto combine = [&](const IDSelector& lhs, const IDSelector& rhs, auto asks_where,
                             auto operation) {
        read(lhs, out, control);
        Bits other(out.size());
        if (known(rhs))
            read(rhs, other, control);
        else
            asks_where(rhs, other);
        for (uint64_t w = 0; w < out.words(); ++w)
            out.word(w) = operation(out.word(w), other.word(w));
    };
    if (const auto* range = as<IDSelectorRange>(selector)) {
        set_run(out, range->imin, range->imax);
    } else if (const auto* array = as<IDSelectorArray>(selector)) {
        set_each(out, array->ids, array->n, control);
    } else if (const auto* batch = as<IDSelectorBatch>(selector)) {
        set_each(out, batch->set.begin(), batch->set.size(), control);
    } else if (const auto* bitmap = as<IDSelectorBitmap>(selector)) {
        read(*bitmap, out);
    } else if (as<IDSelectorAll>(selector) != nullptr) {
        set_run(out, 0, static_cast<int64_t>(out.size()));
    } else if (const auto* inverse = as<IDSelectorNot>(selector)) {
        read(*inverse->sel, out, control);
        for (uint64_t w = 0; w < out.words(); ++w) out.word(w) = ~out.word(w);
        out.trim();
    } else if (const auto* both = as<IDSelectorAnd>(selector)) {
        combine(
            *both->lhs, *both->rhs,
            [&](const IDSelector& rhs, Bits& other) { ask(rhs, other, control, &out, true); },
            [](uint64_t a, uint64_t b) { return a & b; });
    } else if (const auto* any = as<IDSelectorOr>(selector)) {
        combine(
            *any->lhs, *any->rhs,
            [&](const IDSelector& rhs, Bits& other) { ask(rhs, other, control, &out, false); },
            [](uint64_t a, uint64_t b) { return a | b; });
    } else if (const auto* one = as<IDSelectorXOr>(selector)) {
        combine(
            *one->lhs, *one->rhs,
            [&](const IDSelector& rhs, Bits& other) { read(rhs, other, control); },
            [](uint64_t a, uint64_t b) { return a ^ b; });
    } else {
        ask(selector, out, control);
    }
}

}  // namespace

Selection select(const faiss::IDSelector& selector, const State& state, const Control& control) {
    Selection out{Bits(state.size), state.version};
    read(selector, out.ids, control);
    return out;
}

bool better_asked(const faiss::IDSelector& selector, uint64_t n, uint64_t queries) {
    constexpr double kQuery = 20e3;  // nanoseconds
    if (!known(selector, true) ||
        cost(selector, static_cast<double>(n)) <= kQuery * static_cast<double>(queries))
        return false;
    constexpr uint64_t kSample = 256, kDense = kSample / 32;
    uint64_t selected = 0;
    for (uint64_t i = 0; i < kSample; ++i)
        selected += selector.is_member(static_cast<faiss::idx_t>(i * n / kSample));
    return selected >= kDense;
}

}  // namespace dmih
