#pragma once

#include <cstdint>
#include <type_traits>

namespace gsprune {

/// Runs `body(context, task)` for every task in [0, num_tasks) on up to `num_threads` threads, the caller among them.
///
/// Tasks are claimed one by one, so a worker that wakes late costs nothing: the caller takes what nobody has claimed
/// and waits, asleep, only for tasks that a worker is in the middle of. Which thread runs a task is left open: bodies
/// must give results that do not depend on it. A call made while another one runs is served by its caller alone.
void run_tasks(std::int64_t num_tasks, int num_threads, void (*body)(void*, std::int64_t) noexcept, void* context);

template <class Body>
void parallel_for(std::int64_t num_tasks, int num_threads, Body& body) {
    static_assert(noexcept(body(std::int64_t{})), "a task that throws would end the process");
    run_tasks(
        num_tasks, num_threads, [](void* context, std::int64_t task) noexcept { (*static_cast<Body*>(context))(task); },
        &body);
}

}  // namespace gsprune
