// Many may search an index at once; whoever changes it waits until they are done, and is alone
// then.
//
// Waiting asks `control`, so that Ctrl-C ends it, and takes no lock of the system's: in a forked
// child the threads that were at the index do not exist, and what they held is void.
#pragma once

#include <atomic>
#include <cstdint>

#include "parallel.hpp"

namespace dmih {

class Gate {
public:
    // Within the gate as long as it lives, with others or alone.
    class Visit {
    public:
        enum Kind { kShared, kAlone };

        // Throws std::logic_error instead of waiting for its own thread, as it would where a signal
        // handler of Python's, run by a search, changes the index. What is shared already, the same
        // thread may share once more, whoever waits.
        Visit(const Gate& gate, Kind kind, const Control& control);
        ~Visit();
        Visit(const Visit&) = delete;
        Visit& operator=(const Visit&) = delete;

        // Whether this thread, alone here, has not begun to change anything: then it may share.
        void may_read(bool may) { may_read_ = may; }

    private:
        const Gate& gate_;
        const Visit* const outer_;  // of the same thread, at any gate
        const uint32_t generation_;
        uint64_t held_;
        bool may_read_ = false;
    };

private:
    uint64_t present(uint64_t state) const;
    template <class May>
    bool try_enter(May may, uint64_t added) const;

    // From the top: the generation of the process, 32 bits; whether somebody is alone in here; how
    // many wait to be, 15 bits (they let nobody else in, or they might wait for ever); how many are
    // in here, 16 bits.
    mutable std::atomic<uint64_t> state_{0};
};

}  // namespace dmih
