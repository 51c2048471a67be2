// The planner in made worlds, where it is known what everything costs: what it takes over the
// better of its two engines alone. tests/test_planner.py compiles it with engine/planner.cpp.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <vector>

#include "part.hpp"
#include "planner.hpp"
#include "scan_costs.hpp"

using dmih::Planner;
using dmih::Probed;
using dmih::ProbeLimits;
using dmih::ScanCosts;
using dmih::Segment;

namespace {

double built_item_ns, model_scan_ns;

// A query is found by `easy` items, or if it is one of the hard ones by `hard`; until then nobody
// knows.
struct World {
    const char* name;
    size_t queries;           // of a call
    double easy, hard;        // items
    double share_hard;        // of the queries
    double item_ns;           // that an item takes
    double scan_ns;           // of a query, of all
    double mixed = 1;         // how much dearer, of each, the few are that alone are scanned
    double thought_item = 1;  // when the segment was built, of item_ns
    double thought_scan = 1;  // by the kernels' costs, of scan_ns
    double pause = 1;         // how much longer the first scan takes
    double shares = 1;        // of the codes, that the sample of a large batch says it would need
    double later_scan = 1;    // how much longer scans take after some calls,
    double later_item = 1;    // and items
};

struct Costs {
    double planned = 0, scanning = 0, probing = 0;
    double regret() const { return planned / std::min(scanning, probing); }
};

class Life {
public:
    explicit Life(const World& world) : world_(world), random_(1) {
        built_item_ns = world.item_ns * world.thought_item;
        model_scan_ns = world.scan_ns * world.thought_scan;
        segment_.slots = segment_.n = 1;
        segment_.words = 1;
    }

    void goes_on() {
        world_.scan_ns *= world_.later_scan;
        world_.item_ns *= world_.later_item;
    }

    Costs calls(int n) {
        Costs costs;
        for (int i = 0; i < n; ++i) call(costs);
        return costs;
    }

private:
    void call(Costs& costs) {
        std::vector<double> needs(world_.queries);
        for (double& need : needs) {
            need = uniform_(random_) < world_.share_hard ? world_.hard : world_.easy;
            costs.probing += need * world_.item_ns;
        }
        costs.scanning += world_.scan_ns * static_cast<double>(needs.size());
        costs.planned += planned(needs);
    }

    double planned(const std::vector<double>& needs) {
        const ScanCosts kernels{0, 0, 1, 1e300, 1e300, 1};
        Planner planner(segment_, kernels, needs.size(), 1, dmih::knn_workload(10));
        std::vector<double> left;
        double took = 0;
        if (planner.large()) {
            took = of_large(planner, needs, left);
        } else if (planner.scans_at_once()) {
            left = needs;
        } else {
            took = probes(planner, needs, [&] { return planner.next_look(); }, left, false);
        }
        const double scanned = static_cast<double>(left.size());
        const double spared = 1 - scanned / static_cast<double>(needs.size());
        double scan = scanned * world_.scan_ns * (1 + (world_.mixed - 1) * spared);
        if (!left.empty() && ++scans_ == 1) scan *= world_.pause;
        planner.learn_scan(left.size(), scan);
        planner.learn_call(took + scan);
        return took + scan;
    }

    double of_large(Planner& planner, const std::vector<double>& needs, std::vector<double>& left) {
        if (!planner.samples()) {
            left = needs;
            return 0;
        }
        const auto begin_of_rest = needs.begin() + Planner::kSample;
        const std::vector<double> sample(needs.begin(), begin_of_rest);
        const std::vector<double> rest(begin_of_rest, needs.end());
        const ProbeLimits longest = planner.longest_look();
        double took = probes(planner, sample, [&] { return longest; }, left, true);
        if (planner.asks_for_shares(probed_))
            planner.expect_scans(std::vector<double>(sample.size(), world_.shares));
        const std::optional<ProbeLimits> best = planner.best_look(probed_, longest.tells_of);
        if (best)
            took += probes(planner, rest, [&] { return *best; }, left, false);
        else
            left.insert(left.end(), rest.begin(), rest.end());
        return took;
    }

    template <class Limits>
    double probes(Planner& planner, const std::vector<double>& needs, const Limits& limits,
                  std::vector<double>& left, bool sampling) {
        probed_.clear();
        double items = 0;
        for (const double need : needs) {
            const ProbeLimits of_one = limits();
            const bool done = need <= of_one.look;
            const double spent = done ? need : std::max(of_one.look, 0.0);
            probed_.push_back({done, spent, done ? need : HUGE_VAL});
            if (!done) left.push_back(need);
            if (of_one.tells_of > 0 && !planner.large())
                planner.learn(probed_.back(), of_one.tells_of);
            if (!sampling && spent > 0) planner.learn_probe(spent, spent * world_.item_ns);
            items += spent;
        }
        if (sampling) planner.learn_sample(items, items * world_.item_ns);
        return items * world_.item_ns;
    }

    World world_;
    Segment segment_;
    std::mt19937_64 random_;
    std::uniform_real_distribution<double> uniform_;
    std::vector<Probed> probed_;
    int scans_ = 0;
};

}  // namespace

// What the planner asks of others, as the world has it.
double dmih::Segment::item_ns() const {
    return built_item_ns;
}
double dmih::ScanCosts::per_code(size_t, int) const {
    return model_scan_ns;
}

int main() {
    bool right = true;
    for (const size_t queries : {1, 32, 1024}) {
        const std::vector<World> worlds{
            {"probing is far cheaper", queries, 100, 100, 0, 20, 200e3},
            {"probing is half", queries, 1000, 1000, 0, 20, 40e3},
            {"scanning is half", queries, 4000, 4000, 0, 20, 40e3},
            {"probing is useless", queries, 1e7, 1e7, 0, 20, 40e3},
            {"one in ten is hard", queries, 100, 1e6, 0.1, 20, 40e3},
            {"nine in ten are hard", queries, 100, 1e6, 0.9, 20, 40e3},
            {"scanning some is dear", queries, 100, 1e6, 0.3, 20, 40e3, 6},
            {"scans are thought dear", queries, 3000, 3000, 0, 20, 20e3, 1, 1, 4},
            {"and shares say so", queries, 3000, 3000, 0, 20, 20e3, 1, 1, 4, 1, 0.25},
            {"scans are thought cheap", queries, 1000, 1000, 0, 20, 80e3, 1, 1, 0.2},
            {"items are thought dear", queries, 1000, 1000, 0, 10, 20e3, 1, 4, 1},
            {"items are thought cheap", queries, 4000, 4000, 0, 20, 40e3, 1, 0.25, 1},
            {"a pause in the first scan", queries, 4000, 4000, 0, 20, 40e3, 1, 1, 1, 100},
            {"scans get cheaper", queries, 1000, 1000, 0, 20, 30e3, 1, 1, 1, 1, 1, 0.25, 1},
            {"scans get dearer", queries, 1000, 1000, 0, 20, 10e3, 1, 1, 1, 1, 1, 4, 1},
            {"items get cheaper", queries, 1000, 1000, 0, 20, 10e3, 1, 1, 1, 1, 1, 1, 0.25},
            {"items get dearer", queries, 1000, 1000, 0, 20, 30e3, 1, 1, 1, 1, 1, 1, 4},
        };
        for (const World& world : worlds) {
            Life life(world);
            const Costs first = life.calls(queries == 1 ? 3000 : 300);
            life.goes_on();
            life.calls(queries == 1 ? 3000 : 300);
            const Costs later = life.calls(queries == 1 ? 4000 : 1000);
            std::printf("%-28s %5zu queries: %.3f at first, then %.3f of the better engine\n",
                        world.name, queries, first.regret(), later.regret());
            right &= later.regret() <= 1.15;
        }
    }
    return right ? 0 : 1;
}
