#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace gsprune {

/// With less data, waking a second thread takes longer than it saves.
constexpr std::int64_t min_parallel_bytes = std::int64_t{256} << 10U;

class Pool;

/// Runs `body(context, task)` for every task in [0, num_tasks) on up to `num_threads` threads, including the caller's.
///
/// Helpers begin at once; the caller joins in `finish` and may do other work before. Every thread has a share of
/// neighbouring tasks, the same one in runs of the same size, so that its caches still hold the data. A thread that has
/// finished its share takes tasks from the end of other shares. So a helper that wakes late costs nothing, and the
/// caller waits only for tasks in progress. Results of a body must not depend on the thread that runs it. A run that
/// begins during another one gets no helpers.
class Tasks {
public:
    using Body = void (*)(void*, std::int64_t) noexcept;

    /// Throws std::bad_alloc before any task has begun.
    Tasks(std::int64_t num_tasks, int num_threads, Body body, void* context);
    /// Drops the tasks that have not begun.
    ~Tasks();
    Tasks(const Tasks&) = delete;
    Tasks& operator=(const Tasks&) = delete;

    /// Returns when all tasks are done.
    void finish() noexcept;

private:
    friend class Pool;

    /// Tasks [front, back), packed as two 32-bit halves. The owner takes from the front, others from the back.
    struct alignas(64) Share {
        std::atomic<std::uint64_t> left{0};
    };

    /// Works as thread number `thread`; the caller's is 0.
    void work(std::size_t thread) noexcept;
    [[nodiscard]] bool take(Share& share, bool is_own, std::int64_t& task) const noexcept;

    Body body_;
    void* context_;
    std::size_t num_shares_;
    std::unique_ptr<Share[]> shares_;
    Pool* pool_ = nullptr;  // null without helpers
};

/// Wakes helpers for tasks that will come within 0.3 ms. If none come, they sleep again.
void expect_tasks(int num_threads);

/// A `Tasks::Body` that calls a function object, which must not throw.
template <class Body>
Tasks::Body task_body(const Body&) noexcept {
    static_assert(noexcept(std::declval<Body&>()(std::int64_t{})), "a task that throws would end the process");
    return [](void* context, std::int64_t task) noexcept { (*static_cast<Body*>(context))(task); };
}

template <class Body>
void parallel_for(std::int64_t num_tasks, int num_threads, Body& body) {
    Tasks(num_tasks, num_threads, task_body(body), &body).finish();
}

}  // namespace gsprune
