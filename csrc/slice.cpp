#include "slice.hpp"

#include <algorithm>
#include <deque>

#include "parallel.hpp"
#include "slice_kernels.hpp"

namespace gsprune {

namespace {

// Long against claiming it, short against a network.
constexpr std::int64_t task_bytes = std::int64_t{128} << 10U;
// Runs of this size and more are copied as such; shorter ones are picked out of whole vectors by a mask.
constexpr std::int64_t long_run = 512;
// Below this much data a second thread takes longer to wake than to help.
constexpr std::int64_t min_parallel_bytes = std::int64_t{256} << 10U;
constexpr std::int64_t max_segment_span = std::int64_t{1} << 31U;

/// A dimension in memory order, as far as slicing tells it apart from its neighbours. Strides count bytes.
struct Dim {
    std::int64_t size;
    std::int64_t stride;
    const Keep* keep;  // null: whole

    [[nodiscard]] std::int64_t kept() const noexcept { return keep == nullptr ? size : keep->count; }
};

const Keep* find_keep(const SlicePattern& pattern, int axis, std::int64_t size) noexcept {
    for (const AxisKeep& entry : pattern) {
        if (entry.axis == axis) return entry.keep->count == size ? nullptr : entry.keep;
    }
    return nullptr;
}

/// Dimensions in memory order; neighbours that stay whole and have no gap between them are one.
std::vector<Dim> coalesce(const View& source, const SlicePattern& pattern) {
    const Order order = memory_order(source);
    std::vector<Dim> dims;
    for (int i = 0; i < source.ndim; ++i) {
        const int axis = order[static_cast<std::size_t>(i)];
        const auto a = static_cast<std::size_t>(axis);
        const Dim dim{source.shape[a], source.strides[a] * source.itemsize, find_keep(pattern, axis, source.shape[a])};
        if (dim.size == 1) continue;  // its keep has one position, since targets with none are not sliced
        const bool joins = !dims.empty() && dims.back().keep == nullptr && dim.keep == nullptr &&
                           dims.back().stride == dim.stride * dim.size;
        if (joins) {
            dims.back() = Dim{dims.back().size * dim.size, dim.stride, nullptr};
        } else {
            dims.push_back(dim);
        }
    }
    return dims;
}

/// Appends moves to a program and cuts them into segments.
class ProgramWriter {
public:
    explicit ProgramWriter(RowProgram& program) noexcept : program_(program) {}

    void add(std::int64_t source, std::uint64_t what, std::int64_t num_bytes) {
        if (program_.segments.empty() || program_.segments.back().target_bytes + num_bytes > max_segment_bytes ||
            source - program_.segments.back().source > max_segment_span) {
            const auto num_ops = static_cast<std::int64_t>(program_.ops.size());
            program_.segments.push_back({num_ops, num_ops, source, target_, 0});
        }
        Segment& segment = program_.segments.back();
        program_.ops.push_back({static_cast<std::uint32_t>(source - segment.source),
                                static_cast<std::uint32_t>(segment.target_bytes), what});
        ++segment.last_op;
        segment.target_bytes += num_bytes;
        target_ += num_bytes;
    }

    void add_run(std::int64_t source, std::int64_t num_bytes) {
        while (num_bytes > 0) {
            const std::int64_t piece = std::min(num_bytes, max_segment_bytes);
            add(source, static_cast<std::uint64_t>(piece), piece);
            source += piece;
            num_bytes -= piece;
        }
    }

    /// As add_run, into the masks of blocks of `block_lanes`; runs come in ascending order.
    void add_to_masks(std::int64_t first_lane, std::int64_t num_lanes, std::int64_t block_lanes) {
        const std::int64_t end = first_lane + num_lanes;
        for (std::int64_t lane = first_lane; lane < end;) {
            const std::int64_t block = lane / block_lanes;
            if (block != block_) flush_mask(block_lanes);
            block_ = block;
            const std::int64_t block_end = std::min(end, (block + 1) * block_lanes);
            const auto num_bits = static_cast<std::uint64_t>(block_end - lane);
            const std::uint64_t bits = num_bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << num_bits) - 1;
            mask_ |= bits << static_cast<std::uint64_t>(lane % block_lanes);
            num_in_mask_ += block_end - lane;
            lane = block_end;
        }
    }

    void flush_mask(std::int64_t block_lanes) {
        if (num_in_mask_ == 0) return;
        add(block_ * block_lanes * program_.lane_bytes, mask_, num_in_mask_ * program_.lane_bytes);
        mask_ = 0;
        num_in_mask_ = 0;
    }

    [[nodiscard]] std::int64_t num_bytes() const noexcept { return target_; }

private:
    RowProgram& program_;
    std::int64_t target_ = 0;
    std::int64_t block_ = -1;
    std::uint64_t mask_ = 0;
    std::int64_t num_in_mask_ = 0;
};

/// The size of the lanes to mask, 0 if runs are to be copied.
std::int64_t choose_lane_bytes(std::int64_t unit, const Keep& keep, Isa isa) noexcept {
    const std::int64_t kept_bytes = keep.count * unit;
    if (kept_bytes >= long_run * static_cast<std::int64_t>(keep.runs.size())) return 0;
    if (isa == Isa::plain) return 0;
    if (unit % 4 == 0) return 4;
    if (isa == Isa::avx2) return 0;
    return unit % 2 == 0 ? 2 : 1;
}

/// The moves of a row whose `size` positions of `unit` bytes lie one after another.
void write_row(RowProgram& program, std::int64_t size, std::int64_t unit, const Keep* keep, Isa isa) {
    ProgramWriter writer(program);
    if (keep == nullptr) {
        writer.add_run(0, size * unit);
    } else {
        const std::int64_t lane_bytes = choose_lane_bytes(unit, *keep, isa);
        program.lane_bytes = lane_bytes;
        const std::int64_t vector_bytes = isa == Isa::avx512 ? 64 : 32;
        for (const Run& run : keep->runs) {
            if (lane_bytes == 0) {
                writer.add_run(run.start * unit, run.length * unit);
            } else {
                const std::int64_t lanes = unit / lane_bytes;
                writer.add_to_masks(run.start * lanes, run.length * lanes, vector_bytes / lane_bytes);
            }
        }
        if (lane_bytes != 0) writer.flush_mask(vector_bytes / lane_bytes);
    }
    program.row_target_bytes = writer.num_bytes();
}

/// The moves of a row whose positions are `stride` bytes apart.
void write_gather(RowProgram& program, const Dim& dim, std::int64_t itemsize) {
    ProgramWriter writer(program);
    for (std::int64_t i = 0; i < dim.kept(); ++i) {
        const std::int64_t position = dim.keep == nullptr ? i : dim.keep->positions[i];
        writer.add_run(position * dim.stride, itemsize);
    }
    program.row_target_bytes = writer.num_bytes();
}

RowProgram make_program(const SliceJob& job, const SlicePattern& pattern, Isa isa) {
    std::vector<Dim> dims = coalesce(job.source, pattern);
    const std::int64_t itemsize = job.source.itemsize;
    RowProgram program;
    std::int64_t unit = itemsize;
    // A whole dimension without gaps at the end is a part of the unit that the dimension before it is made of.
    if (dims.size() >= 2 && dims.back().keep == nullptr && dims.back().stride == itemsize &&
        dims[dims.size() - 2].stride == itemsize * dims.back().size) {
        unit *= dims.back().size;
        dims.pop_back();
    }
    if (dims.empty()) {
        write_row(program, 1, unit, nullptr, isa);
        return program;
    }
    const Dim row = dims.back();
    dims.pop_back();
    if (row.stride == unit) {
        write_row(program, row.size, unit, row.keep, isa);
    } else {
        write_gather(program, row, itemsize);
    }
    for (const Dim& dim : dims) {
        const std::int64_t* positions = dim.keep == nullptr ? nullptr : dim.keep->positions;
        program.outer[static_cast<std::size_t>(program.num_outer++)] = {dim.kept(), dim.stride, positions};
        program.num_rows *= dim.kept();
    }
    return program;
}

SliceKernel find_kernel(Isa isa) noexcept {
    switch (isa) {
        case Isa::avx512:
            return &avx512_slice_kernel;
        case Isa::avx2:
            return &avx2_slice_kernel;
        case Isa::plain:
            break;
    }
    return &plain_slice_kernel;
}

bool equal_layout(const View& a, const View& b) noexcept {
    return a.ndim == b.ndim && a.itemsize == b.itemsize && a.shape == b.shape && a.strides == b.strides;
}

/// Programs made so far; a weight, its gradient and its moments share one.
class Programs {
public:
    Programs(const std::vector<SlicePattern>& patterns, Isa isa)
        : patterns_(patterns), isa_(isa), made_(patterns.size()) {}

    const RowProgram& get(const SliceJob& job) {
        for (const Made& made : made_[job.pattern]) {
            if (equal_layout(*made.layout, job.source)) return *made.program;
        }
        const RowProgram& program = programs_.emplace_back(make_program(job, patterns_[job.pattern], isa_));
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
    std::deque<RowProgram> programs_;      // a deque: growing moves nothing
};

/// A job with its program and its share of the tasks.
struct Move {
    const SliceJob* job;
    const RowProgram* program;
    std::int64_t items_per_task;
    std::int64_t first_task;
    bool stream;
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

void slice_all(const std::vector<SliceJob>& jobs, const std::vector<SlicePattern>& patterns, Isa isa, int num_threads,
               std::int64_t stream_from) {
    std::int64_t total_bytes = 0;
    for (const SliceJob& job : jobs) total_bytes += job.target.numel() * job.target.itemsize;
    Programs programs(patterns, isa);
    std::vector<Move> moves;
    moves.reserve(jobs.size());
    std::int64_t num_tasks = 0;
    for (const SliceJob& job : jobs) {
        const std::int64_t num_bytes = job.target.numel() * job.target.itemsize;
        if (num_bytes == 0) continue;
        const RowProgram& program = programs.get(job);
        const std::int64_t num_items = program.num_items();
        const std::int64_t per_task = std::max<std::int64_t>(1, num_items * task_bytes / num_bytes);
        moves.push_back({&job, &program, per_task, num_tasks, total_bytes >= stream_from});
        num_tasks += (num_items + per_task - 1) / per_task;
    }
    const SliceKernel kernel = find_kernel(isa);
    auto body = [&](std::int64_t task) noexcept {
        const auto after = std::upper_bound(moves.begin(), moves.end(), task,
                                            [](std::int64_t t, const Move& move) { return t < move.first_task; });
        const Move& move = *(after - 1);
        const std::int64_t first = (task - move.first_task) * move.items_per_task;
        const std::int64_t last = std::min(first + move.items_per_task, move.program->num_items());
        kernel(*move.program, move.job->source.data, move.job->target.data, first, last, move.stream);
    };
    parallel_for(num_tasks, total_bytes < min_parallel_bytes ? 1 : num_threads, body);
}

}  // namespace gsprune
