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

/// Kept positions of an axis; the caller owns the array.
struct Keep {
    const std::int64_t* positions = nullptr;
    std::int64_t count = 0;
    std::vector<Run> runs;
};

/// Finds the runs. Returns the first index with a negative or not strictly ascending position; -1 if there is none.
std::int64_t resolve_keep(const std::int64_t* positions, std::int64_t count, Keep& keep);

struct AxisKeep {
    int axis;
    const Keep* keep;
};

/// The kept positions of a tensor; axes without an entry stay whole.
using SlicePattern = std::vector<AxisKeep>;

/// The kept positions of an axis of that size; null if it stays whole.
const Keep* find_keep(const SlicePattern& pattern, int axis, std::int64_t size) noexcept;

/// target[i, j, ...] = source[keep_0[i], keep_1[j], ...].
struct SliceJob {
    View source;
    View target;          // dense, with the dimensions in memory_order(source)
    std::size_t pattern;  // index into the patterns
};

/// Calls that write at least this many bytes use non-temporal stores: 5/16 of the last-level cache (32 MB if unknown).
///
/// With 32 MB of cache, ordinary stores make steps that write 10 to 16 MB take 8 % longer; smaller steps take as long
/// with either. With 260 MB, non-temporal stores make a step of impala-4 take 1.6 times as long.
std::int64_t min_stream_bytes() noexcept;

/// Slices many tensors. Helper threads begin at once; the caller joins in `finish`.
///
/// Targets must not overlap anything. Jobs, patterns and memory must outlive the object. Nothing is written after
/// `finish` or destruction.
class SliceTasks {
public:
    /// Works through the jobs in `order`; non-temporal stores from `stream_from` bytes on. Throws std::bad_alloc before
    /// anything is written.
    SliceTasks(const std::vector<SliceJob>& jobs, const std::vector<std::size_t>& order,
               const std::vector<SlicePattern>& patterns, Isa isa, int num_threads,
               std::int64_t stream_from = min_stream_bytes());
    ~SliceTasks();
    SliceTasks(const SliceTasks&) = delete;
    SliceTasks& operator=(const SliceTasks&) = delete;

    /// Helps, and returns when all slices are written.
    void finish() noexcept;

private:
    class Work;
    std::unique_ptr<Work> work_;
};

/// Job indices by descending size, then by pattern. So a weight, its gradient and its moments, which share a pattern,
/// follow each other. Mostly the thread that summed a weight also slices it.
std::vector<std::size_t> slice_order(const std::vector<SliceJob>& jobs);

}  // namespace gsprune
