#include "parallel.hpp"

#include <cxxabi.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace dmih {
namespace {

constexpr std::chrono::milliseconds kBetweenChecks{20};

// What a processor does while a thread looks.
inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waking a thread that sleeps takes some 30 microseconds, as long as a small batch's scan, and a
// search shares out work several times. So those who wait look for so long before they sleep.
// (OpenMP's threads, FAISS's among them, look for milliseconds.)
constexpr std::chrono::microseconds kLooks{100};

// False: it has not become true.
template <class Condition>
bool looks_until(const Condition& condition) {
    constexpr int kPauses = 64;  // between questions for the time, and turns left to others
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
        for (int i = 0; i < kPauses; ++i) {
            if (condition()) return true;
            pause();
        }
        if (std::chrono::steady_clock::now() - start > kLooks) return false;
        std::this_thread::yield();
    }
}

// Ends the helpers' tasks after the calling thread was stopped; its own exception is the
// one told, so this one is not kept.
struct Stopped : std::exception {
    const char* what() const noexcept override { return "stopped"; }
};

// One parallel_for: shared by the caller and the threads that joined it.
struct Job {
    size_t n;
    const std::function<void(size_t)>* task;
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::exception_ptr error;

    void fail() {
        std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = std::current_exception();
        failed.store(true);
    }

    // Takes tasks until none is left.
    void run(const Control& control) {
        // Python ends threads that wait for its lock at exit by unwinding them, which may not be
        // stopped here.
        try {
            while (!failed.load(std::memory_order_relaxed)) {
                const size_t i = next.fetch_add(1);
                if (i >= n) break;
                (*task)(i);
                control.poll();
            }
        } catch (abi::__forced_unwind&) {
            failed.store(true);
            throw;
        } catch (const Stopped&) {
            failed.store(true);
        } catch (...) {
            fail();
        }
    }
};

class Pool {
public:
    // False: the pool is busy with another call.
    bool try_run(Job& job, int helpers, const Control& control);

private:
    void work();

    std::mutex owner_;  // held by the call that uses the pool
    std::mutex mutex_;
    std::condition_variable wake_, idle_;
    Job* job_ = nullptr;
    const Control* control_ = nullptr;
    // Changed with the lock held; looked at without.
    std::atomic<int> wanted_{0};   // threads that may still join the job
    std::atomic<int> running_{0};  // threads inside it
    int threads_ = 0;
};

bool Pool::try_run(Job& job, int helpers, const Control& control) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        for (; threads_ < helpers; ++threads_) {
            try {
                std::thread(&Pool::work, this).detach();
            } catch (const std::system_error&) {
                break;  // the system gives no more threads: those there are will do
            }
        }
        job_ = &job;
        control_ = &control;
        wanted_ = std::min(helpers, threads_);
    }
    wake_.notify_all();
    struct Leave {  // the job lives on this thread's stack: nobody may still be at it
        Pool& pool;
        bool left_alone(std::chrono::milliseconds wait) {
            std::unique_lock<std::mutex> lock(pool.mutex_);
            pool.wanted_ = 0;
            const auto alone = [this] { return pool.running_ == 0; };
            if (!alone()) {
                lock.unlock();
                looks_until(alone);
                lock.lock();
            }
            return pool.idle_.wait_for(lock, wait, alone);
        }
        ~Leave() {
            while (!left_alone(std::chrono::hours(1))) {
            }
            pool.job_ = nullptr;
        }
    } leave{*this};
    job.run(control);
    // The helpers' last tasks may take a while.
    while (!leave.left_alone(kBetweenChecks)) control.poll();
    return true;
}

void Pool::work() {
    const auto wanted = [this] { return wanted_ > 0; };
    for (;;) {
        looks_until(wanted);
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, wanted);
        --wanted_;
        ++running_;
        Job* job = job_;
        const Control* control = control_;
        lock.unlock();
        job->run(*control);
        lock.lock();
        if (--running_ == 0) idle_.notify_all();
    }
}

// Never destroyed: its threads wait for work until the process ends. In a forked child they do not
// exist and the locks may be held by nobody, so the child starts from a new pool. Made when the
// module is loaded, before there can be a fork from another thread; it has no threads until used.
std::atomic<uint32_t> generation{0};
std::atomic<Pool*> pool{[] {
    pthread_atfork(nullptr, nullptr, [] {
        pool.store(new Pool);
        generation.fetch_add(1);
    });
    return new Pool;
}()};

}  // namespace

uint32_t process_generation() {
    return generation.load(std::memory_order_relaxed);
}

void Control::poll() const {
    if (std::this_thread::get_id() != caller_) {
        if (stopped_.load(std::memory_order_relaxed)) throw Stopped();
        return;
    }
    if (std::chrono::steady_clock::now() - last_ >= kBetweenChecks) check();
}

void Control::check() const {
    if (!check_) return;
    last_ = std::chrono::steady_clock::now();
    try {
        check_();
    } catch (...) {
        stopped_.store(true);
        throw;
    }
}

void parallel_for(const Control& control, size_t n, const std::function<void(size_t)>& task) {
    Job job;
    job.n = n;
    job.task = &task;
    const size_t helpers = std::min<size_t>(n, std::max(control.threads(), 1)) - (n > 0 ? 1 : 0);
    if (helpers == 0 || !pool.load()->try_run(job, static_cast<int>(helpers), control))
        job.run(control);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace dmih
