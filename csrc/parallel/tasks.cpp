#include "parallel/tasks.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define GSPRUNE_HAS_FORK 1
#endif

namespace gsprune {

namespace {

using Clock = std::chrono::steady_clock;

// Sleeping and waking takes 10 to 50 us, so threads spin for that long before they sleep. They do not spin longer,
// because the thread that they wait for may need the core.
constexpr auto spin_time = std::chrono::microseconds(50);
// Time from the start of a core call to its tasks (ResNet-50: 0.2 to 0.3 ms to read its tensors).
constexpr auto longest_expectation = std::chrono::microseconds(300);

inline void pause() noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

/// Spins until `holds()` or until `time` has passed; returns the last value of `holds()`.
template <class Condition>
bool spin(Clock::duration time, Condition holds) noexcept {
    constexpr int checks_per_clock = 16;  // reading the clock takes as long as a pause
    const auto end = Clock::now() + time;
    for (;;) {
        for (int i = 0; i < checks_per_clock; ++i) {
            if (holds()) return true;
            pause();
        }
        if (Clock::now() >= end) return holds();
    }
}

}  // namespace

/// Helper threads that sleep on a condition variable. Never destroyed: they may still sleep at process exit.
///
/// A thread announces its sleep before it checks its condition a last time. A thread that changes the condition reads
/// the announcements afterwards. All these accesses are sequentially consistent, so no thread misses a change.
class Pool {
public:
    /// Returns false if another run has the helpers.
    bool begin(Tasks& run, int num_helpers) noexcept {
        num_helpers = std::min(num_helpers, most_helpers);
        if (!callers_.try_lock()) return false;
        grow(num_helpers);
        current_ = &run;
        expected_until_.store(never);
        seats_.store(std::min(num_helpers, num_helpers_) * seat);
        wake(num_helpers);
        return true;
    }

    /// Closes the run to further helpers and waits for those at work.
    void end() noexcept {
        const auto all_have_left = [this] { return seats_.load() == 0; };
        seats_.fetch_and(seat - 1);
        if (!spin(spin_time, all_have_left)) {
            std::unique_lock<std::mutex> guard(mutex_);
            is_caller_asleep_.store(true);
            done_.wait(guard, all_have_left);
            is_caller_asleep_.store(false);
        }
        callers_.unlock();
    }

    void expect(int num_helpers) noexcept {
        num_helpers = std::min(num_helpers, most_helpers);
        if (!callers_.try_lock()) return;
        grow(num_helpers);
        expected_until_.store((Clock::now() + longest_expectation).time_since_epoch().count());
        wake(num_helpers);
        callers_.unlock();
    }

private:
    // `seats_` counts this much for each free seat and 1 for each helper at work.
    static constexpr int seat = 1 << 16;
    static constexpr int most_helpers = 1023;
    static constexpr Clock::rep never = std::numeric_limits<Clock::rep>::min();

    void grow(int num_wanted) noexcept {
        while (num_helpers_ < num_wanted) {
            try {
                std::thread([this, number = static_cast<std::size_t>(num_helpers_ + 1)] { serve(number); }).detach();
            } catch (const std::exception&) {
                return;  // no thread or memory available: the caller does the work
            }
            ++num_helpers_;
        }
    }

    void wake(int num_wanted) noexcept {
        const int num_asleep = num_asleep_.load();
        if (num_asleep == 0) return;
        {
            const std::lock_guard<std::mutex> guard(mutex_);
        }  // a helper that announced its sleep now waits on `wake_`
        for (int i = 0; i < std::min(num_wanted, num_asleep); ++i) wake_.notify_one();
    }

    [[noreturn]] void serve(std::size_t number) {
        for (;;) {
            const std::size_t taken = take_seat();
            if (taken == 0) {
                sleep();
                continue;
            }
            // A helper keeps its share from run to run, unless it was made for runs with more threads.
            current_->work(number < current_->num_shares_ ? number : taken);
            if (seats_.fetch_sub(1) == 1 && is_caller_asleep_.load()) {
                const std::lock_guard<std::mutex> guard(mutex_);
                done_.notify_one();
            }
        }
    }

    /// Takes a free seat. Returns its number, from 1 on, or 0 if no seat is free.
    std::size_t take_seat() noexcept {
        int seats = seats_.load();
        while (seats >= seat) {
            if (seats_.compare_exchange_weak(seats, seats - seat + 1)) return static_cast<std::size_t>(seats / seat);
        }
        return 0;
    }

    void sleep() {
        const auto is_seat_free = [this] { return seats_.load() >= seat; };
        const auto left = [this] {
            const Clock::rep until = expected_until_.load();
            return until == never ? Clock::duration::zero() : Clock::duration(until) - Clock::now().time_since_epoch();
        };
        {
            std::unique_lock<std::mutex> guard(mutex_);
            num_asleep_.fetch_add(1);
            wake_.wait(guard, [&] { return is_seat_free() || left() > Clock::duration::zero(); });
            num_asleep_.fetch_sub(1);
        }
        spin(left(), is_seat_free);
    }

    std::mutex callers_;        // locked by the run that has the helpers, from `begin` to `end`
    Tasks* current_ = nullptr;  // read by helpers with a seat
    int num_helpers_ = 0;
    std::atomic<int> seats_{0};
    std::atomic<int> num_asleep_{0};
    std::atomic<bool> is_caller_asleep_{false};
    std::atomic<Clock::rep> expected_until_{never};
    std::mutex mutex_;  // guards going to sleep
    std::condition_variable wake_;
    std::condition_variable done_;
};

namespace {

std::atomic<Pool*> the_pool{nullptr};

#ifdef GSPRUNE_HAS_FORK
/// A forked child makes a new pool: it has none of the threads, and the locks may be locked.
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

Tasks::Tasks(std::int64_t num_tasks, int num_threads, Body body, void* context)
    : body_(body),
      context_(context),
      num_shares_(static_cast<std::size_t>(std::clamp<std::int64_t>(num_tasks, 1, std::max(1, num_threads)))),
      shares_(std::make_unique<Share[]>(num_shares_)) {
    const auto edge = [&](std::size_t share) { return static_cast<std::uint64_t>(num_tasks) * share / num_shares_; };
    for (std::size_t i = 0; i < num_shares_; ++i) shares_[i].left.store(edge(i) | edge(i + 1) << 32U);
    const int num_helpers = static_cast<int>(num_shares_) - 1;
    if (num_helpers == 0) return;
    Pool& helpers = pool();
    if (helpers.begin(*this, num_helpers)) pool_ = &helpers;
}

Tasks::~Tasks() {
    for (std::size_t i = 0; i < num_shares_; ++i) shares_[i].left.store(0, std::memory_order_relaxed);
    if (pool_ != nullptr) pool_->end();
}

void Tasks::finish() noexcept {
    work(0);
    if (pool_ != nullptr) pool_->end();
    pool_ = nullptr;
}

void Tasks::work(std::size_t thread) noexcept {
    for (std::size_t i = 0; i < num_shares_; ++i) {
        Share& share = shares_[(thread + i) % num_shares_];
        for (std::int64_t task = 0; take(share, i == 0, task);) body_(context_, task);
    }
}

bool Tasks::take(Share& share, bool is_own, std::int64_t& task) const noexcept {
    constexpr std::uint64_t one_at_back = std::uint64_t{1} << 32U;
    std::uint64_t left = share.left.load(std::memory_order_relaxed);
    for (;;) {
        const std::uint64_t front = left & (one_at_back - 1);
        const std::uint64_t back = left >> 32U;
        if (front >= back) return false;
        const std::uint64_t rest = is_own ? left + 1 : left - one_at_back;
        if (!share.left.compare_exchange_weak(left, rest, std::memory_order_relaxed)) continue;
        task = static_cast<std::int64_t>(is_own ? front : back - 1);
        return true;
    }
}

void expect_tasks(int num_threads) {
    if (num_threads > 1) pool().expect(num_threads - 1);
}

}  // namespace gsprune
