#include <algorithm>
#include <limits>

#include "slice/kernels.hpp"

namespace gsprune {

namespace {

// Runs of at least this average size are copied as runs. A table of lanes is as fast, but takes time to make.
constexpr std::int64_t long_run = 512;
// A change of rows costs as much as two or three lines of 64 bytes. For longer rows, folding costs more than it saves.
constexpr std::int64_t short_row = 512;
// With folded rows of 64 KB, slices of IMPALA at tau 2 took 1.5 times as long: the tables left the first-level cache.
constexpr std::int64_t max_folded_row = std::int64_t{16} << 10U;
constexpr std::int64_t max_position = 0xFFFF;
// Positions are written in blocks; the last block may end after the table.
constexpr std::int64_t block = 32;

/// One dimension, or several merged ones. Strides count bytes.
struct Dim {
    std::int64_t size;
    std::int64_t stride;
    const Keep* keep;  // null: all positions

    [[nodiscard]] std::int64_t kept() const noexcept { return keep == nullptr ? size : keep->count; }
    [[nodiscard]] std::int64_t position(std::int64_t i) const noexcept {
        return keep == nullptr ? i : keep->positions[i];
    }
};

/// A row of a tensor.
struct Row {
    std::vector<Dim> dims;  // the slowest first
    std::int64_t unit;      // contiguous bytes at one position of all dimensions

    /// True if neighbouring positions of the last dimension are contiguous.
    [[nodiscard]] bool is_dense() const noexcept { return dims.back().keep != nullptr && dims.back().stride == unit; }

    [[nodiscard]] std::int64_t num_bytes() const noexcept {
        std::int64_t count = unit;
        for (const Dim& dim : dims) count *= dim.kept();
        return count;
    }

    [[nodiscard]] std::int64_t num_runs() const noexcept {
        if (dims.empty()) return 1;
        const std::int64_t num_units = num_bytes() / unit;
        if (!is_dense()) return num_units;
        return num_units / dims.back().kept() * static_cast<std::int64_t>(dims.back().keep->runs.size());
    }

    /// Calls `add(start, length)`, in bytes, for every run in the order of the target.
    template <class Add>
    void for_each_run(Add& add, std::size_t dim = 0, std::int64_t offset = 0) const {
        if (dim == dims.size()) return add(offset, unit);
        if (dim + 1 == dims.size() && is_dense()) {
            for (const Run& run : dims[dim].keep->runs) add(offset + run.start * unit, run.length * unit);
            return;
        }
        for (std::int64_t i = 0; i < dims[dim].kept(); ++i) {
            for_each_run(add, dim + 1, offset + dims[dim].position(i) * dims[dim].stride);
        }
    }
};

/// The dimensions in memory order; contiguous neighbours that stay whole are merged.
std::vector<Dim> coalesce(const View& source, const SlicePattern& pattern) {
    const Order order = memory_order(source);
    std::vector<Dim> dims;
    dims.reserve(static_cast<std::size_t>(source.ndim));
    for (int i = 0; i < source.ndim; ++i) {
        const int axis = order[static_cast<std::size_t>(i)];
        const auto a = static_cast<std::size_t>(axis);
        const Dim dim{source.shape[a], source.strides[a] * source.itemsize, find_keep(pattern, axis, source.shape[a])};
        if (dim.size == 1) continue;  // it keeps its position, since empty targets are not sliced
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

/// Moves dimensions from the end of `dims` into a row until the row is not short.
Row take_row(std::vector<Dim>& dims, std::int64_t itemsize) {
    Row row{{}, itemsize};
    row.dims.reserve(dims.size());
    if (!dims.empty() && dims.back().keep == nullptr && dims.back().stride == itemsize) {
        row.unit *= dims.back().size;
        dims.pop_back();
    }
    std::int64_t num_bytes = row.unit;
    while (!dims.empty()) {
        const std::int64_t folded = num_bytes * dims.back().kept();
        const bool is_innermost = row.dims.empty();
        if (!is_innermost && (num_bytes >= short_row || folded > max_folded_row)) break;
        num_bytes = folded;
        row.dims.insert(row.dims.begin(), dims.back());
        dims.pop_back();
    }
    return row;
}

/// The size of the lanes to gather; 1 to copy runs.
std::int64_t choose_lane_bytes(const Row& row, Isa isa) noexcept {
    if (isa == Isa::plain || row.num_bytes() >= long_run * row.num_runs()) return 1;
    std::int64_t all = row.unit;
    for (const Dim& dim : row.dims) all |= dim.stride;
    return all % 4 == 0 ? 4 : 1;
}

void write_runs(RowProgram& program, const Row& row) {
    program.pieces.reserve(static_cast<std::size_t>(row.num_runs()) + 1);
    std::int64_t next_source = -1;
    auto add = [&](std::int64_t start, std::int64_t length) {
        if (start != next_source) program.pieces.push_back({start, program.row_lanes});
        program.row_lanes += length;
        next_source = start + length;
    };
    row.for_each_run(add);
}

/// Appends positions; begins a new piece if positions descend or get too large.
class TableWriter {
public:
    TableWriter(RowProgram& program, std::int64_t num_lanes) : program_(program) {
        program.positions.resize(static_cast<std::size_t>(num_lanes + block));
        program.pieces.reserve(2);
    }

    void operator()(std::int64_t start, std::int64_t length) {
        std::int64_t lane = start / program_.lane_bytes;
        const std::int64_t end = lane + length / program_.lane_bytes;
        while (lane < end) {
            if (lane < next_ || lane - first_ > max_position) {
                program_.pieces.push_back({lane * program_.lane_bytes, program_.row_lanes});
                first_ = lane;
            }
            const std::int64_t count = std::min(end, first_ + max_position + 1) - lane;
            write(lane - first_, count);
            lane += count;
            next_ = lane;
        }
    }

private:
    void write(std::int64_t position, std::int64_t count) noexcept {
        std::uint16_t* out = program_.positions.data() + program_.row_lanes;
        for (std::int64_t i = 0; i < count; i += block) {
            const auto first = static_cast<std::uint16_t>(position + i);
            for (std::uint16_t j = 0; j < block; ++j) out[i + j] = static_cast<std::uint16_t>(first + j);
        }
        program_.row_lanes += count;
    }

    RowProgram& program_;
    std::int64_t first_ = 0;                                        // first source lane of the piece
    std::int64_t next_ = std::numeric_limits<std::int64_t>::max();  // the lane after the last one; max: none yet
};

/// Bytes from the first to the last element.
std::int64_t extent(const View& view) noexcept {
    std::int64_t last = 0;
    for (std::size_t dim = 0; dim < static_cast<std::size_t>(view.ndim); ++dim) {
        last += (view.shape[dim] - 1) * view.strides[dim];
    }
    return (last + 1) * view.itemsize;
}

}  // namespace

const Keep* find_keep(const SlicePattern& pattern, int axis, std::int64_t size) noexcept {
    for (const AxisKeep& entry : pattern) {
        if (entry.axis == axis) return entry.keep->count == size ? nullptr : entry.keep;
    }
    return nullptr;
}

RowProgram make_program(const View& source, const SlicePattern& pattern, Isa isa) {
    std::vector<Dim> dims = coalesce(source, pattern);
    const Row row = take_row(dims, source.itemsize);
    RowProgram program;
    program.source_bytes = extent(source);
    program.lane_bytes = choose_lane_bytes(row, isa);
    if (program.lane_bytes == 1) {
        write_runs(program, row);
    } else {
        TableWriter writer(program, row.num_bytes() / program.lane_bytes);
        row.for_each_run(writer);
    }
    program.pieces.push_back({0, program.row_lanes});
    for (const Dim& dim : dims) {
        const std::int64_t* positions = dim.keep == nullptr ? nullptr : dim.keep->positions;
        program.outer[static_cast<std::size_t>(program.num_outer++)] = {dim.kept(), dim.stride, positions};
    }
    return program;
}

}  // namespace gsprune
