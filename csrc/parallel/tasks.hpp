#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace gsprune {

/// Below this much data a second thread takes longer to wake than to help.
constexpr std::int64_t min_parallel_bytes = std::int64_t{256} << 10U;

class Pool;

/// `body(context, task)` for every task in [0, num_tasks) on up to `num_threads` threads, the caller among them.
///
/// Helpers begin at once; the caller joins in `finish`, and may do something else before. Every thread has a share of
/// neighbouring tasks, the same at every run of as many, so that it finds in its caches what it has written there the
/// last time. Who has done his share takes tasks from the end of others', so a helper that wakes late costs nothing;
/// the caller waits only for tasks that a helper is in the middle of. Which thread runs a task is left open: bodies
/// must give results that do not depend on it. What begins while another run is under way is done by its caller alone.
class Tasks {
public:
    using Body = void (*)(void*, std::int64_t) noexcept;

    /// Throws std::bad_alloc before any task has begun.
    Tasks(std::int64_t num_tasks, int num_threads, Body body, void* context);
    /// Unless it is finished, tasks that nobody has taken are left out.
    ~Tasks();
    Tasks(const Tasks&) = delete;
    Tasks& operator=(const Tasks&) = delete;

    /// Returns when all tasks are done.
    void finish() noexcept;

private:
    friend class Pool;

    /// The tasks from `front` up to `back`, 32 bits each: taken by its owner from the front, by others from the back.
    struct alignas(64) Share {
        std::atomic<std::uint64_t> left{0};
    };

    /// By the thread of that number, the caller's being 0.
    void work(std::size_t thread) noexcept;
    [[nodiscard]] bool take(Share& share, bool is_own, std::int64_t& task) const noexcept;

    Body body_;
    void* context_;
    std::size_t num_shares_;
    std::unique_ptr<Share[]> shares_;
    Pool* pool_ = nullptr;  // whose helpers it has
};

/// Lets helpers wake up for tasks that will come within 0.3 ms; where none come, they sleep again.
void expect_tasks(int num_threads);

/// The `Tasks` of a function object, which must not throw.
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
