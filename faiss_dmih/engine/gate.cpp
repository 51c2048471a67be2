#include "gate.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace dmih {
namespace {

constexpr uint64_t kOne = 1, kOneWaits = uint64_t{1} << 16, kOneAlone = uint64_t{1} << 31;
constexpr uint64_t kAllInside = kOneWaits - kOne, kAllWaiting = kOneAlone - kOneWaits;

thread_local const Gate::Visit* innermost = nullptr;

// Until try_it() returns true, asked less and less often.
template <class Try>
void wait_until(const Control& control, Try try_it) {
    using namespace std::chrono;
    for (microseconds pause{1}; !try_it(); pause = std::min<microseconds>(2 * pause, 1ms)) {
        std::this_thread::sleep_for(pause);
        control.poll();
    }
}

}  // namespace

// What was held when the process was forked, nobody holds in the child.
uint64_t Gate::present(uint64_t state) const {
    const uint64_t generation = uint64_t{process_generation()} << 32;
    return state >> 32 << 32 == generation ? state : generation;
}

template <class May>
bool Gate::try_enter(May may, uint64_t added) const {
    uint64_t seen = state_.load(std::memory_order_relaxed);
    do {
        if (!may(present(seen))) return false;
    } while (!state_.compare_exchange_weak(seen, present(seen) + added, std::memory_order_acquire,
                                           std::memory_order_relaxed));
    return true;
}

Gate::Visit::Visit(const Gate& gate, Kind kind, const Control& control)
    : gate_(gate),
      outer_(innermost),
      generation_(process_generation()),
      held_(kind == kAlone ? kOneAlone : kOne) {
    const Visit* own = outer_;
    while (own != nullptr && &own->gate_ != &gate) own = own->outer_;
    const bool reads_within = own != nullptr && own->may_read_ && kind == kShared;
    if (own != nullptr && !reads_within && (kind == kAlone || own->held_ == kOneAlone))
        throw std::logic_error(
            "this index is being searched or changed by the same thread: a signal handler, a "
            "selector or a writer cannot change it, nor search it while it is changed");
    if (reads_within) {
        held_ = 0;
    } else if (kind == kShared) {
        const uint64_t waits_for = own != nullptr ? kOneAlone : kOneAlone | kAllWaiting;
        const auto may = [&](uint64_t state) { return (state & waits_for) == 0; };
        if (!gate.try_enter(may, kOne))
            wait_until(control, [&] { return gate.try_enter(may, kOne); });
    } else {
        const auto may = [](uint64_t state) { return (state & (kOneAlone | kAllInside)) == 0; };
        if (!gate.try_enter(may, kOneAlone)) {
            // Nobody else gets in from here on.
            gate.try_enter([](uint64_t) { return true; }, kOneWaits);
            try {
                wait_until(control, [&] { return gate.try_enter(may, kOneAlone - kOneWaits); });
            } catch (...) {
                gate.state_.fetch_sub(kOneWaits, std::memory_order_relaxed);
                throw;
            }
        }
    }
    innermost = this;
}

Gate::Visit::~Visit() {
    innermost = outer_;
    // In a child that was forked by this very thread, nobody knows of this visit any more.
    if (process_generation() == generation_)
        gate_.state_.fetch_sub(held_, std::memory_order_release);
}

}  // namespace dmih
