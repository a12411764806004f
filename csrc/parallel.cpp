#include "parallel.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define GSPRUNE_HAS_FORK 1
#endif

namespace gsprune {

namespace {

struct Job {
    std::int64_t num_tasks;
    void (*body)(void*, std::int64_t) noexcept;
    void* context;
    std::atomic<std::int64_t> next{0};
    int num_active = 0;  // workers inside the job; guarded by Pool::mutex

    void work() noexcept {
        for (;;) {
            const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
            if (task >= num_tasks) return;
            body(context, task);
        }
    }
};

/// Workers asleep on a condition variable. Never destroyed: they may still sleep when the process ends.
class Pool {
public:
    void run(Job& job, int num_helpers) {
        const std::unique_lock<std::mutex> only_caller(callers, std::try_to_lock);
        if (!only_caller.owns_lock()) {
            job.work();
            return;
        }
        grow(num_helpers);
        {
            const std::lock_guard<std::mutex> guard(mutex);
            current = &job;
            num_seats = num_helpers < num_workers ? num_helpers : num_workers;
        }
        for (int i = 0; i < num_helpers; ++i) wake.notify_one();
        job.work();
        std::unique_lock<std::mutex> guard(mutex);
        num_seats = 0;
        current = nullptr;
        done.wait(guard, [&job] { return job.num_active == 0; });
    }

private:
    void grow(int num_wanted) {
        while (num_workers < num_wanted) {
            try {
                std::thread([this] { serve(); }).detach();
            } catch (const std::system_error&) {
                return;  // no more threads to be had: the caller does the work
            }
            ++num_workers;
        }
    }

    [[noreturn]] void serve() {
        std::unique_lock<std::mutex> guard(mutex);
        for (;;) {
            wake.wait(guard, [this] { return num_seats > 0; });
            --num_seats;
            Job& job = *current;
            ++job.num_active;
            guard.unlock();
            job.work();
            guard.lock();
            if (--job.num_active == 0) done.notify_one();
        }
    }

    std::mutex callers;  // held by the one call that is served
    std::mutex mutex;    // guards what follows
    std::condition_variable wake;
    std::condition_variable done;
    Job* current = nullptr;
    int num_seats = 0;  // workers that may still join `current`
    int num_workers = 0;
};

std::atomic<Pool*> the_pool{nullptr};

#ifdef GSPRUNE_HAS_FORK
/// The threads of a pool do not exist in a forked child, and its locks may be held: the child makes a new one.
void forget_pool() noexcept { the_pool.store(nullptr); }
#endif

Pool& pool() {
    Pool* existing = the_pool.load(std::memory_order_acquire);
    if (existing != nullptr) return *existing;
#ifdef GSPRUNE_HAS_FORK
    static const int registered = pthread_atfork(nullptr, nullptr, &forget_pool);
    static_cast<void>(registered);
#endif
    auto* fresh = new Pool;
    if (the_pool.compare_exchange_strong(existing, fresh)) return *fresh;
    delete fresh;
    return *existing;
}

}  // namespace

void run_tasks(std::int64_t num_tasks, int num_threads, void (*body)(void*, std::int64_t) noexcept, void* context) {
    Job job{num_tasks, body, context};
    if (num_threads <= 1 || num_tasks <= 1) {
        job.work();
        return;
    }
    const std::int64_t num_helpers = num_threads < num_tasks ? num_threads - 1 : num_tasks - 1;
    pool().run(job, static_cast<int>(num_helpers));
}

}  // namespace gsprune
