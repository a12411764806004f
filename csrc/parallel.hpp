#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace gsprune {

class Pool;

/// `body(context, task)` for every task in [0, num_tasks) on up to `num_threads` threads, the caller among them.
///
/// Helpers begin at once; the caller joins in `finish`, and may do something else before. Tasks are claimed one by one,
/// so a helper that wakes late costs nothing: the caller takes what nobody has claimed, and waits only for tasks that a
/// helper is in the middle of. Which thread runs a task is left open: bodies must give results that do not depend on
/// it. What begins while another one is under way is done by its caller alone.
class TaskRun {
public:
    using Body = void (*)(void*, std::int64_t) noexcept;

    TaskRun(std::int64_t num_tasks, int num_threads, Body body, void* context);
    /// Unless it is finished, tasks that nobody has claimed are left out.
    ~TaskRun();
    TaskRun(const TaskRun&) = delete;
    TaskRun& operator=(const TaskRun&) = delete;

    /// Returns when all tasks are done.
    void finish() noexcept;

private:
    friend class Pool;
    void work() noexcept;

    std::int64_t num_tasks_;
    Body body_;
    void* context_;
    std::atomic<std::int64_t> next_{0};
    Pool* pool_ = nullptr;  // whose helpers it has
};

/// Lets helpers wake up for tasks that will come within some microseconds; where none come, they sleep again.
void expect_tasks(int num_threads);

/// The `TaskRun` of a function object, which must not throw.
template <class Body>
TaskRun::Body task_body(const Body&) noexcept {
    static_assert(noexcept(std::declval<Body&>()(std::int64_t{})), "a task that throws would end the process");
    return [](void* context, std::int64_t task) noexcept { (*static_cast<Body*>(context))(task); };
}

template <class Body>
void parallel_for(std::int64_t num_tasks, int num_threads, Body& body) {
    TaskRun(num_tasks, num_threads, task_body(body), &body).finish();
}

}  // namespace gsprune
