#include "slice/slice.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <tuple>

#include "machine/last_level_cache.hpp"
#include "parallel/tasks.hpp"
#include "slice/kernels.hpp"
#include "tensor/ceil_div.hpp"

namespace gsprune {

namespace {

// A task of this size takes long compared to claiming it, but not compared to a whole network.
constexpr std::int64_t task_bytes = std::int64_t{128} << 10U;
// Beginning a tensor costs as much as copying this many bytes.
constexpr std::int64_t tensor_bytes = 1024;

SliceKernel find_kernel(Isa isa) noexcept {
#ifdef GSPRUNE_HAS_AVX
    if (isa != Isa::plain) return &avx2_slice_kernel;
#endif
    static_cast<void>(isa);
    return &plain_slice_kernel;
}

/// A cache of programs: a weight, its gradient and its moments share one.
class Programs {
public:
    Programs(const std::vector<SlicePattern>& patterns, Isa isa)
        : patterns_(patterns), isa_(isa), made_(patterns.size()) {}

    const RowProgram& get(const SliceJob& job) {
        for (const Made& made : made_[job.pattern]) {
            if (equal_layout(*made.layout, job.source)) return *made.program;
        }
        const RowProgram& program = programs_.emplace_back(make_program(job.source, patterns_[job.pattern], isa_));
        made_[job.pattern].push_back({&job.source, &program});
        return program;
    }

private:
    struct Made {
        const View* layout;
        const RowProgram* program;
    };

    const std::vector<SlicePattern>& patterns_;
    Isa isa_;
    std::vector<std::vector<Made>> made_;  // per pattern
    std::deque<RowProgram> programs_;      // growing a deque moves no element
};

/// A job with its program and its place in the queue. Places count bytes; tasks are ranges of one size.
struct Move {
    const SliceJob* job;
    const RowProgram* program;
    std::int64_t first;      // its place
    std::int64_t num_bytes;  // bytes to write

    /// The target byte at `place`, rounded down to a cache line: no two tasks write to one line.
    [[nodiscard]] std::int64_t byte_at(std::int64_t place) const noexcept {
        if (place <= first) return 0;
        if (place - first >= num_bytes) return num_bytes;
        const auto before = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(job->target.data) %
                                                      static_cast<std::uintptr_t>(line_bytes));
        const std::int64_t byte = (before + place - first) / line_bytes * line_bytes - before;
        return std::max<std::int64_t>(0, byte / program->lane_bytes * program->lane_bytes);
    }
};

}  // namespace

std::int64_t resolve_keep(const std::int64_t* positions, std::int64_t count, Keep& keep) {
    keep.positions = positions;
    keep.count = count;
    keep.runs.clear();
    if (count == 0) return -1;
    if (positions[0] < 0) return 0;
    std::int64_t start = 0;
    for (std::int64_t i = 1; i < count; ++i) {
        if (positions[i] == positions[i - 1] + 1) continue;
        if (positions[i] <= positions[i - 1]) return i;
        keep.runs.push_back({positions[start], i - start});
        start = i;
    }
    keep.runs.push_back({positions[start], count - start});
    return -1;
}

std::int64_t min_stream_bytes() noexcept {
    constexpr std::int64_t assumed = std::int64_t{32} << 20U;
    const std::int64_t cache = last_level_cache_bytes();
    return (cache > 0 ? cache : assumed) / 16 * 5;
}

class SliceTasks::Work {
public:
    Work(const std::vector<SliceJob>& jobs, const std::vector<std::size_t>& order,
         const std::vector<SlicePattern>& patterns, Isa isa, int num_threads, std::int64_t stream_from)
        : programs_(patterns, isa), kernel_(find_kernel(isa)) {
        std::int64_t total_bytes = 0;
        std::int64_t end = 0;  // of the queue
        moves_.reserve(jobs.size());
        for (const std::size_t index : order) {
            const SliceJob& job = jobs[index];
            const std::int64_t num_bytes = job.target.numel() * job.target.itemsize;
            if (num_bytes == 0) continue;
            moves_.push_back({&job, &programs_.get(job), end, num_bytes});
            total_bytes += num_bytes;
            end += num_bytes + tensor_bytes;
        }
        stream_ = total_bytes >= stream_from;
        const std::int64_t num_tasks = ceil_div(end, task_bytes);
        run_.emplace(num_tasks, total_bytes < min_parallel_bytes ? 1 : num_threads, task_body(*this), this);
    }

    void finish() noexcept { run_->finish(); }

    void operator()(std::int64_t task) const noexcept {
        const std::int64_t first = task * task_bytes;
        const std::int64_t last = first + task_bytes;
        auto move = std::upper_bound(moves_.begin(), moves_.end(), first,
                                     [](std::int64_t place, const Move& m) { return place < m.first; });
        for (--move; move != moves_.end() && move->first < last; ++move) {
            const std::int64_t from = move->byte_at(first);
            const std::int64_t to = move->byte_at(last);
            if (from < to) kernel_(*move->program, move->job->source.data, move->job->target.data, from, to, stream_);
        }
    }

private:
    Programs programs_;
    SliceKernel kernel_;
    std::vector<Move> moves_;
    bool stream_ = false;
    std::optional<Tasks> run_;  // the last member: it must be destroyed before the data that it reads
};

std::vector<std::size_t> slice_order(const std::vector<SliceJob>& jobs) {
    std::vector<std::tuple<std::int64_t, std::size_t, std::size_t>> keys;
    keys.reserve(jobs.size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        keys.emplace_back(-jobs[i].target.numel() * jobs[i].target.itemsize, jobs[i].pattern, i);
    }
    std::sort(keys.begin(), keys.end());
    std::vector<std::size_t> order;
    order.reserve(jobs.size());
    for (const auto& key : keys) order.push_back(std::get<2>(key));
    return order;
}

SliceTasks::SliceTasks(const std::vector<SliceJob>& jobs, const std::vector<std::size_t>& order,
                       const std::vector<SlicePattern>& patterns, Isa isa, int num_threads, std::int64_t stream_from)
    : work_(std::make_unique<Work>(jobs, order, patterns, isa, num_threads, stream_from)) {}

SliceTasks::~SliceTasks() = default;

void SliceTasks::finish() noexcept { work_->finish(); }

}  // namespace gsprune
