#include "launch/slice_tables.hpp"

#include <array>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "launch/axis_runs.hpp"

namespace gsprune {

namespace {

/// The largest of 1, 2, 4 and 8 that divides the address.
std::int64_t alignment_of(const View& view) noexcept {
    const std::int64_t bits = address_of(view) | 8;
    return bits & -bits;
}

/// One dimension of a matrix: an axis, or several axes merged with the dimensions between them.
struct Side {
    std::int64_t kept = 1;
    std::int64_t size = 1;
    std::int64_t positions = 0;  // index of the first kept position; 0, the single zero, for a whole dimension
};

/// The lists of kept positions of all patterns, each distinct list once.
class Positions {
public:
    [[nodiscard]] const std::vector<std::int64_t>& all() const noexcept { return all_; }

    /// Merges the runs [begin, end); the first and the last one are axes.
    Side side(const SlicePattern& pattern, const std::vector<AxisRun>& runs, std::size_t begin, std::size_t end) {
        Side side;
        Key key;
        for (std::size_t i = begin; i < end; ++i) {
            const Keep* keep = find_keep(pattern, runs[i].axis, runs[i].size);
            side.size *= runs[i].size;
            side.kept *= keep == nullptr ? runs[i].size : keep->count;
            key.emplace_back(runs[i].size, keep);
        }
        const auto [entry, is_new] = starts_.try_emplace(std::move(key), static_cast<std::int64_t>(all_.size()));
        if (is_new) append(entry->first, 0, 0);
        side.positions = entry->second;
        return side;
    }

private:
    using Key = std::vector<std::pair<std::int64_t, const Keep*>>;  // size of a run and its kept positions (null: all)

    void append(const Key& runs, std::size_t run, std::int64_t base) {
        const auto& [size, keep] = runs[run];
        const std::int64_t count = keep == nullptr ? size : keep->count;
        const std::int64_t start = base * size;
        if (run + 1 == runs.size()) {
            const std::size_t end = all_.size();
            all_.resize(end + static_cast<std::size_t>(count));
            std::int64_t* to = all_.data() + end;
            for (std::int64_t i = 0; i < count; ++i) to[i] = start + (keep == nullptr ? i : keep->positions[i]);
            return;
        }
        for (std::int64_t i = 0; i < count; ++i) {
            append(runs, run + 1, start + (keep == nullptr ? i : keep->positions[i]));
        }
    }

    std::vector<std::int64_t> all_{0};
    std::map<Key, std::int64_t> starts_;
};

/// A tensor as the kernel reads it. All sizes count elements.
struct Matrix {
    std::int64_t before = 1;
    Side first;
    std::int64_t between = 1;
    Side second;
    std::int64_t after = 1;
};

/// The size fields of a job.
struct Cut {
    std::int64_t word = 1;
    std::size_t tile = 0;
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t pitch = 0;
    std::int64_t words = 0;  // after the second axis
    std::int64_t num_tiles = 0;

    Cut() = default;

    Cut(const Matrix& matrix, const View& source, const std::vector<TileSize>& tiles) {
        const std::int64_t num_bytes = matrix.after * source.itemsize;
        word = std::gcd(num_bytes, alignment_of(source));
        words = num_bytes / word;
        rows = matrix.before * matrix.first.kept;
        columns = matrix.between * matrix.second.kept * words;
        pitch = matrix.between * matrix.second.size * words;
        tile = best_tile(rows, columns, tiles);
        num_tiles = count_tiles(rows, columns, tiles[tile]);
    }
};

class Builder {
public:
    Builder(const std::vector<SlicePattern>& patterns, const SliceTiling& tiling, std::size_t num_jobs)
        : patterns_(patterns), tiling_(tiling), plans_(patterns.size()) {
        jobs_.reserve(num_jobs);
    }

    void add(const SliceJob& job) {
        Plan& plan = plans_[job.pattern];
        if (!plan.serves(job)) plan = make_plan(job);
        all_tiles_ += plan.cut.num_tiles;
        jobs_.push_back({address_of(job.source), address_of(job.target), plan.cut, plan.sides});
    }

    [[nodiscard]] SliceTables result() && {
        const std::int64_t most_steps = tiling_.limits.most_steps(all_tiles_);
        Owners owners("slicing");
        std::vector<std::pair<std::int64_t, Grid>> places;  // first program and grid of each job
        places.reserve(jobs_.size());
        for (const Job& job : jobs_) {
            const Grid grid(job.cut.rows, job.cut.columns, tiling_.tiles[job.cut.tile], most_steps);
            places.emplace_back(owners.add(grid.programs()), grid);
        }
        SliceTables tables;
        tables.num_jobs = static_cast<std::int64_t>(jobs_.size());
        tables.programs = owners.programs();
        tables.table.reserve(jobs_.size() * num_fields + positions_.all().size() + owners.length());
        for (std::size_t i = 0; i < jobs_.size(); ++i) {
            const Job& job = jobs_[i];
            const auto& [first, grid] = places[i];
            tables.table.insert(tables.table.end(),
                                {first, job.source, job.target, job.cut.word, static_cast<std::int64_t>(job.cut.tile),
                                 job.cut.rows, job.cut.columns, grid.column_tiles, grid.steps, job.cut.pitch});
            tables.table.insert(tables.table.end(), job.sides.begin(), job.sides.end());
        }
        tables.keep_base = static_cast<std::int64_t>(tables.table.size());
        tables.table.insert(tables.table.end(), positions_.all().begin(), positions_.all().end());
        tables.owners = owners.append_to(tables.table);
        return tables;
    }

private:
    using Sides = std::array<std::int64_t, 7>;  // the last fields of a job
    static constexpr std::size_t num_fields = 10 + std::tuple_size<Sides>::value;

    struct Job {
        std::int64_t source;
        std::int64_t target;
        Cut cut;
        Sides sides;
    };

    /// The fields of a job without its addresses. A weight, its gradient and its moments usually share them.
    struct Plan {
        View source;
        std::int64_t alignment = -1;  // -1: not made yet
        Cut cut;
        Sides sides{};

        [[nodiscard]] bool serves(const SliceJob& job) const noexcept {
            return alignment == alignment_of(job.source) && equal_layout(source, job.source);
        }
    };

    Plan make_plan(const SliceJob& job) {
        Matrix matrix = whole_matrix(job);
        Cut cut(matrix, job.source, tiling_.tiles);
        // With at most one sliced axis, the axis may lie along the rows or along the columns.
        if (matrix.second.positions == 0) {
            Matrix other = matrix;
            std::swap(other.first, other.second);
            if (matrix.first.positions == 0) std::swap(other.before, other.after);
            const Cut turned(other, job.source, tiling_.tiles);
            if (turned.columns <= tiling_.max_columns &&
                (cut.columns > tiling_.max_columns || turned.num_tiles < cut.num_tiles)) {
                matrix = other;
                cut = turned;
            }
        }
        check(job, cut);
        return {job.source,
                alignment_of(job.source),
                cut,
                {matrix.first.kept, matrix.first.size, matrix.first.positions, matrix.second.kept, matrix.second.size,
                 cut.words, matrix.second.positions}};
    }

    /// The matrix with the first sliced axis along the rows.
    Matrix whole_matrix(const SliceJob& job) {
        const SlicePattern& pattern = patterns_[job.pattern];
        std::vector<int> axes;
        for (int axis = 0; axis < job.source.ndim; ++axis) {
            const std::int64_t size = job.source.shape[static_cast<std::size_t>(axis)];
            if (find_keep(pattern, axis, size) != nullptr) axes.push_back(axis);
        }
        const std::vector<AxisRun> runs = axis_runs(job.source, memory_order(job.source), axes);
        Matrix matrix;
        matrix.after = runs.back().size;
        if (axes.empty()) return matrix;
        matrix.before = runs[0].size;
        matrix.first = positions_.side(pattern, runs, 1, 2);
        if (axes.size() == 1) return matrix;
        matrix.between = runs[2].size;
        matrix.second = positions_.side(pattern, runs, 3, runs.size() - 1);
        return matrix;
    }

    void check(const SliceJob& job, const Cut& cut) const {
        if (cut.columns <= tiling_.max_columns) return;
        std::string shape;
        for (int dim = 0; dim < job.source.ndim; ++dim) {
            shape += (dim == 0 ? "" : ", ") + std::to_string(job.source.shape[static_cast<std::size_t>(dim)]);
        }
        throw std::invalid_argument("a tensor of shape (" + shape + ") keeps " + std::to_string(cut.columns) +
                                    " words in one row of its matrix, but the kernel counts at most " +
                                    std::to_string(tiling_.max_columns) + "; split the tensor or use backend='torch'");
    }

    const std::vector<SlicePattern>& patterns_;
    const SliceTiling& tiling_;
    std::vector<Plan> plans_;  // the latest plan of each pattern
    Positions positions_;
    std::vector<Job> jobs_;
    std::int64_t all_tiles_ = 0;
};

}  // namespace

SliceTables slice_tables(const std::vector<SliceJob>& jobs, const std::vector<SlicePattern>& patterns,
                         const SliceTiling& tiling) {
    Builder builder(patterns, tiling, jobs.size());
    for (const SliceJob& job : jobs) builder.add(job);
    return std::move(builder).result();
}

}  // namespace gsprune
