#include "planner.hpp"

#include <algorithm>

#include "part.hpp"
#include "scan_costs.hpp"

namespace dmih {
namespace {

// Of the queries of small batches, one in so many looks far, and the first ones.
constexpr uint32_t kExplore = 32, kFirst = 8;
// A batch of so many queries can spare a sample.
constexpr size_t kLarge = 8 * Planner::kSample;

// A running mean.
void mix(std::atomic<float>& known, double news, double weight) {
    const double old = known.load(std::memory_order_relaxed);
    const double mean = old > 0 ? (1 - weight) * old + weight * news : std::max(news, 1e-3);
    known.store(static_cast<float>(mean), std::memory_order_relaxed);
}

// The plain mean of the first few, of later ones about the last `of_last`.
double weight_of_next(std::atomic<uint32_t>& count, uint32_t of_last) {
    const uint32_t n = count.fetch_add(1, std::memory_order_relaxed);
    return 1.0 / (std::min(n, of_last - 1) + 1);
}

// Whether what costs `ratio` times as much as the other way is tried in call `number`: the more,
// the more seldom.
bool tries(double ratio, uint32_t number) {
    constexpr double kNowAndThen = 32, kSeldom = 1 << 20;
    const auto period = static_cast<uint32_t>(std::min(kNowAndThen * ratio * ratio, kSeldom));
    return number % std::max(period, 2u) == 1;
}

// Of the first `looks` the one that costs least, of those that anything is known of. Of nearly
// equal ones the longest: it has cost nothing, and there are queries that need more than those
// seen did.
template <class CostOf>
size_t cheapest(size_t looks, CostOf cost_of) {
    constexpr double kNearly = 1.02;
    size_t best = 0;
    double least = 1e300;
    for (size_t i = 0; i < looks; ++i) {
        const double cost = cost_of(i);
        if (cost <= 0 || cost > kNearly * least) continue;
        least = std::min(cost, least);
        best = i;
    }
    return best;
}

}  // namespace

int knn_workload(uint64_t k) {
    int bits = 0;
    for (; k > 1; k >>= 1) ++bits;
    return std::min(bits / 2, Experiences::kWorkloads / 2 - 1);
}

int range_workload(int radius, int d) {
    constexpr int kHalf = Experiences::kWorkloads / 2;
    return kHalf + std::min(radius * kHalf / d, kHalf - 1);
}

Experience& Experiences::at(const ScanCosts& costs, size_t queries, int workload) {
    return of[queries >= kLarge ? 2 : costs.blocks_pay(queries) ? 1 : 0][workload];
}

Planner::Planner(const Segment& segment, const ScanCosts& costs, size_t queries, int threads,
                 int workload)
    : known_(segment.experiences->at(costs, queries, workload)),
      large_(queries >= kLarge),
      queries_(queries),
      threads_(queries < static_cast<size_t>(threads) ? 1 : threads),
      shared_ns_(large_ ? threads_ * costs.shared(queries) * segment.slots / costs.block : 0),
      scan_ns_(0),
      model_ns_(segment.slots * costs.per_code(queries, threads)),
      item_ns_(segment.item_ns()) {
    const double scan = known_.scan_ns.load(std::memory_order_relaxed);
    const double expected = known_.expected.load(std::memory_order_relaxed);
    scan_ns_ = scan > 0 ? scan : expected > 0 ? expected : model_ns_;
    const double x = known_.items.load(std::memory_order_relaxed);
    const double y = known_.ns.load(std::memory_order_relaxed);
    if (x <= 0) {
        const double sampled = known_.sampled_ns.load(std::memory_order_relaxed);
        if (sampled > 0) item_ns_ = std::min(item_ns_, sampled);
        return;
    }
    const double xx = known_.items_items.load(std::memory_order_relaxed);
    const double xy = known_.items_ns.load(std::memory_order_relaxed);
    // Probes of one length do not tell a slope: then it is what was measured when the segment was
    // built.
    if (xx > 1.05 * x * x) item_ns_ = std::max((xy - x * y) / (xx - x * x), 0.25 * y / x);
    item_ns_ = std::min(item_ns_, y / x);
    query_ns_ = y - x * item_ns_;
}

ProbeLimits Planner::limits(double look, double scan_ns) const {
    return {scan_ns / item_ns_, look * scan_ns_ / item_ns_};
}

ProbeLimits Planner::longer_than(size_t best, size_t at_least) const {
    // A query's own buckets are worth a look even where a scan costs next to nothing: what items
    // cost there is learnt from nothing else.
    constexpr double kItems = 32;
    const size_t longest = std::clamp(best + 1, at_least, kLooks.size() - 1);
    ProbeLimits out = limits(kLooks[longest], scan_ns_);
    out.look = std::max(out.look, kItems);
    out.tells_of = longest + 1;
    return out;
}

bool Planner::asks_for_shares(const std::vector<Probed>& sample) const {
    // Where probing is far cheaper, or nothing but waste, the answer would change nothing. And it
    // takes time, so that it is kept for some batches.
    constexpr double kContested = 1.0 / 4;
    constexpr uint32_t kNowAndThen = 4;
    if (known_.scan_ns.load(std::memory_order_relaxed) <= 0) return true;
    if (known_.batches.load(std::memory_order_relaxed) % kNowAndThen != 1) return false;
    double spent = 0;
    size_t done = 0;
    for (const Probed& probed : sample) {
        spent += query_ns_ + probed.spent * item_ns_;
        done += probed.done;
    }
    return done > 0 && spent > kContested * scan_ns_ * static_cast<double>(sample.size());
}

void Planner::expect_scans(const std::vector<double>& shares) {
    // Blocks are needed for a few of their codes, and first bounds, lists and hits take time too.
    constexpr double kBlocks = 1.4, kBeside = 0.15;
    const double factor = known_.scan_factor.load(std::memory_order_relaxed);
    double sum = 0;
    for (double share : shares) {
        scan_of_.push_back((factor > 0 ? factor : 1) * (kBeside + kBlocks * share) * model_ns_);
        sum += scan_of_.back();
    }
    known_.expected.store(static_cast<float>(sum / static_cast<double>(shares.size())),
                          std::memory_order_relaxed);
}

bool Planner::finishes(const Probed& probed, double look) const {
    return probed.done && probed.undecided * item_ns_ <= look * scan_ns_;
}

// Of a query that was allowed the longest look, had it been allowed this one.
double Planner::cost(const Probed& probed, double look, double scan_ns) const {
    const double spent = probed.spent > 0 ? query_ns_ + probed.spent * item_ns_ : 0;
    if (probed.undecided * item_ns_ <= look * scan_ns_) return spent + (probed.done ? 0 : scan_ns);
    return std::min(spent, look * scan_ns_) + scan_ns;
}

std::optional<ProbeLimits> Planner::best_look(const std::vector<Probed>& sample, size_t looks) {
    const double queries = static_cast<double>(queries_), all = static_cast<double>(sample.size());
    const auto scanned = [&](size_t i) {
        return static_cast<double>(
            std::count_if(sample.begin(), sample.end(),
                          [&](const Probed& probed) { return !finishes(probed, kLooks[i]); }));
    };
    // The fewer queries need a block, the dearer it is for each; that is not in the estimates.
    constexpr double kMixed = 1.1;
    const auto cost_of = [&](size_t i) {
        double sum = 0;
        for (size_t q = 0; q < sample.size(); ++q) sum += cost(sample[q], kLooks[i], scan_of(q));
        const bool mixed = scanned(i) > 0 && scanned(i) < all;
        return (mixed ? kMixed : 1) * sum / all * queries + (scanned(i) > 0 ? shared_ns_ : 0);
    };
    const size_t best = cheapest(looks, cost_of);
    const double expected = known_.expected.load(std::memory_order_relaxed);
    const double scanning = shared_ns_ + queries * (expected > 0 ? expected : scan_ns_);
    // What both have come to of late tells more than estimates that are near each other.
    constexpr double kHardly = 0.95, kContested = 0.5;
    const double whole = known_.whole_ns.load(std::memory_order_relaxed);
    const double mixed = known_.mixed_ns.load(std::memory_order_relaxed);
    const bool dearer_of_late =
        whole > 0 && whole < kHardly * mixed && cost_of(best) > kContested * queries * whole;
    const bool probes = cost_of(best) < scanning && !dearer_of_late;
    const size_t look = probes ? best : looks - 1;
    const double dearer = probes ? scanning : cost_of(look);
    // What either way costs is an estimate until it has been taken, or was measured in a pause of
    // the machine, and may well be less: now and then the dearer one is tried, and once early.
    constexpr double kWorthTrying = 2;
    const double ratio = std::max(dearer / std::min(cost_of(best), scanning), 1.0);
    const std::atomic<float>& other = probes ? known_.scan_ns : known_.items;
    const bool tried = other.load(std::memory_order_relaxed) > 0;
    const bool other_way = (!tried && ratio < kWorthTrying) ||
                           tries(ratio, known_.batches.load(std::memory_order_relaxed));
    known_.best.store(probes ? static_cast<uint32_t>(best) : 0, std::memory_order_relaxed);
    const auto expect = [&](auto is_left) {
        double sum = 0, count = 0;
        for (size_t q = 0; q < sample.size(); ++q) {
            if (!is_left(sample[q])) continue;
            sum += scan_of(q);
            ++count;
        }
        if (count > 0 && !scan_of_.empty()) left_ns_ = sum / count;
    };
    at_once_ = probes == other_way;
    if (at_once_) {
        expect([](const Probed&) { return true; });
        return std::nullopt;
    }
    expect([&](const Probed& probed) { return !finishes(probed, kLooks[look]); });
    // The fewer are left to scan, the more of what is shared falls to each.
    const double left = queries * (scanned(look) + 1) / (all + 1);
    return limits(kLooks[look], scan_ns_ + shared_ns_ / left);
}

bool Planner::scans_at_once() {
    if (large_) return false;
    constexpr uint32_t kFirstCalls = 8, kNowAndThen = 32;
    constexpr double kHardly = 0.95, kWorthTrying = 4, kSeldom = 1.4;
    const double whole = known_.whole_ns.load(std::memory_order_relaxed);
    const double mixed = known_.mixed_ns.load(std::memory_order_relaxed);
    const uint32_t number = known_.calls.fetch_add(1, std::memory_order_relaxed);
    if (number < kFirstCalls || mixed <= 0) {
        at_once_ = false;
    } else if (whole <= 0) {
        at_once_ = scan_ns_ < kWorthTrying * mixed;
    } else if (whole < kHardly * mixed) {
        // Of those that probe for once every other one looks far: how far to look is not learnt
        // otherwise, nor what comes of it from those.
        at_once_ = number % kNowAndThen != 0;
        explores_ = number % (2 * kNowAndThen) == 0;
    } else {
        at_once_ = tries(std::max(whole / mixed, kSeldom), number);
    }
    return at_once_;
}

void Planner::learn_call(double ns) {
    constexpr double kPause = 8;  // so many times as long, and it was the machine
    std::atomic<float>& known = at_once_ ? known_.whole_ns : known_.mixed_ns;
    const double of_one = of_all_threads(ns) / static_cast<double>(queries_);
    const double old = known.load(std::memory_order_relaxed);
    if (explores_ || (old > 0 && of_one > kPause * old)) return;
    const double weight = weight_of_next(at_once_ ? known_.wholes : known_.mixed, 32);
    mix(known, of_one, old > kPause * of_one ? 1 : weight);
}

ProbeLimits Planner::next_look() {
    const size_t best = cheapest(
        kLooks.size(), [&](size_t i) { return known_.look_ns[i].load(std::memory_order_relaxed); });
    const uint32_t number = known_.queries.fetch_add(1, std::memory_order_relaxed);
    // Half a scan; now and then a whole one, since those who need that much are not found
    // otherwise.
    if (number < kFirst || number % kExplore == 0 || explores_)
        return longer_than(best, number % (4 * kExplore) == 0 || explores_ ? 5 : 4);
    return limits(kLooks[best], scan_ns_);
}

void Planner::learn(const Probed& probed, size_t looks) {
    const double weight = weight_of_next(known_.looks, 16);
    for (size_t i = 0; i < looks; ++i)
        mix(known_.look_ns[i], cost(probed, kLooks[i], scan_ns_), weight);
}

void Planner::learn_sample(double items, double ns) {
    if (items <= 0 || known_.items.load(std::memory_order_relaxed) > 0) return;
    item_ns_ = std::min(item_ns_, ns / items);
    known_.sampled_ns.store(static_cast<float>(item_ns_), std::memory_order_relaxed);
}

void Planner::learn_probe(double items, double ns) {
    constexpr double kPause = 8;
    const double pace = query_ns_ + items * item_ns_;
    if (known_.items.load(std::memory_order_relaxed) > 0 && ns > kPause * pace) return;
    const double weight = weight_of_next(known_.probes, 32);
    mix(known_.items, items, weight);
    mix(known_.ns, ns, weight);
    mix(known_.items_items, items * items, weight);
    mix(known_.items_ns, items * ns, weight);
}

void Planner::learn_filtered(Experience& known, double ns) {
    mix(known.filtered_ns, ns, 1.0 / 4);
}

void Planner::learn_scan(size_t queries, double ns) {
    const double old = known_.scan_ns.load(std::memory_order_relaxed);
    if (queries == 0) {
        // Else a dear scan, as in a pause of the machine, would be believed for ever.
        constexpr double kForget = 1.0 / 128;
        if (old > model_ns_) mix(known_.scan_ns, model_ns_, kForget);
        return;
    }
    const double all = of_all_threads(ns);
    const double of_one = std::max(all - shared_ns_, all / 4) / static_cast<double>(queries);
    // A few that probing gave up are the hard ones: they tell little of the others.
    const double share = static_cast<double>(queries) / static_cast<double>(queries_);
    const double weight = large_ ? share * share / 4 : 1.0 / 4;
    if (left_ns_ > 0) {
        const double factor = known_.scan_factor.load(std::memory_order_relaxed);
        const double off = std::clamp(of_one / left_ns_, 0.25, 4.0);
        mix(known_.scan_factor, (factor > 0 ? factor : 1) * off, share / 4);
    }
    // Nothing but a scan itself makes it faster.
    constexpr double kFaster = 3;
    if (old > 0 || share > 0.5 || !large_)
        mix(known_.scan_ns, old > 0 ? std::min(of_one, 4 * old) : of_one,
            of_one < old ? kFaster * weight : weight);
}

}  // namespace dmih
