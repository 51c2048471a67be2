// Threads of our own: std::thread, started at the first parallel call, never at import, and started
// anew in a child after fork. (OpenMP's do not survive a fork, and sanitizers cannot see them.)
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

namespace dmih {

// What one call of the engine may use, and how it is stopped. Made by the calling thread.
class Control {
public:
    explicit Control(int threads = 1, std::function<void()> check_interrupt = nullptr)
        : threads_(threads), check_(std::move(check_interrupt)) {}

    int threads() const { return threads_; }

    // To be called every millisecond or so by whoever works for the call. On the calling thread it
    // asks check_interrupt, which throws to stop, at most every 20 ms (the question takes Python's
    // global lock); on the others it throws once the calling thread has been stopped.
    void poll() const;
    // poll() in a loop, for i = 0, 1, ..: now and then.
    void poll(uint64_t i) const {
        constexpr uint64_t kEvery = 1 << 14;
        if (i % kEvery == 0) poll();
    }
    // On the calling thread, asks check_interrupt at once: before a change that cannot be undone.
    void check() const;

private:
    int threads_;
    std::function<void()> check_;
    std::thread::id caller_ = std::this_thread::get_id();
    mutable std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
    mutable std::atomic<bool> stopped_{false};
};

// Runs task(0) .. task(n - 1) on the calling thread and up to control.threads() - 1 others, in any
// order. The first exception stops the rest and is rethrown here. When another call holds the
// threads, everything runs on the calling thread, so that concurrent calls do not wait for each
// other. A task that lasts longer than some milliseconds polls `control`.
void parallel_for(const Control& control, size_t n, const std::function<void(size_t)>& task);

// How many forks lie between the process that loaded this module and this one.
uint32_t process_generation();

}  // namespace dmih
