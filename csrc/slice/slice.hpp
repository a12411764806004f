#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "machine/isa.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// Consecutive kept positions.
struct Run {
    std::int64_t start;
    std::int64_t length;
};

/// Kept positions of an axis; the array is somebody else's and outlives the call.
struct Keep {
    const std::int64_t* positions = nullptr;
    std::int64_t count = 0;
    std::vector<Run> runs;
};

/// Finds the runs; returns the first index at which `positions` are negative or not strictly ascending, -1 if none is.
std::int64_t resolve_keep(const std::int64_t* positions, std::int64_t count, Keep& keep);

struct AxisKeep {
    int axis;
    const Keep* keep;
};

/// What is kept of a tensor: axes without an entry stay whole.
using SlicePattern = std::vector<AxisKeep>;

/// What is kept of an axis of that size; null where it stays whole.
const Keep* find_keep(const SlicePattern& pattern, int axis, std::int64_t size) noexcept;

/// target[i, j, ...] = source[keep_0[i], keep_1[j], ...].
struct SliceJob {
    View source;
    View target;          // dense, its dimensions in memory_order(source)
    std::size_t pattern;  // index
};

/// Runs that write so many bytes write past the caches: what they read and write does not stay there from one step to
/// the next. That is 5/16 of the last-level cache. With 32 MB of cache, whole steps that write 10 to 16 MB take 8 %
/// longer through the caches, and smaller ones as long; with 260 MB, a step of impala-4 takes 1.6 times as long past
/// them. Where the system does not tell its cache, 32 MB are assumed.
std::int64_t min_stream_bytes() noexcept;

/// All jobs; targets overlap nothing. Runs that write `stream_from` bytes or more write past the caches.
///
/// Other threads begin at once, the caller joins them in `finish`. Jobs, patterns and memory outlive the run, which
/// writes nothing any more once it is finished or destroyed.
class SliceTasks {
public:
    /// Jobs are done in `order`. Throws std::bad_alloc before anything is written.
    SliceTasks(const std::vector<SliceJob>& jobs, const std::vector<std::size_t>& order,
               const std::vector<SlicePattern>& patterns, Isa isa, int num_threads,
               std::int64_t stream_from = min_stream_bytes());
    ~SliceTasks();
    SliceTasks(const SliceTasks&) = delete;
    SliceTasks& operator=(const SliceTasks&) = delete;

    /// Returns when all slices are written.
    void finish() noexcept;

private:
    class Work;
    std::unique_ptr<Work> work_;
};

/// The largest first, and those that are cut alike one after the other: a weight, its gradient and its moments are
/// sliced by the same table, and by the same thread that sums the weight, which takes the largest first, too.
std::vector<std::size_t> slice_order(const std::vector<SliceJob>& jobs);

inline void slice_all(const std::vector<SliceJob>& jobs, const std::vector<SlicePattern>& patterns, Isa isa,
                      int num_threads, std::int64_t stream_from = min_stream_bytes()) {
    SliceTasks(jobs, slice_order(jobs), patterns, isa, num_threads, stream_from).finish();
}

}  // namespace gsprune
