#include "score_tables.hpp"

#include <algorithm>

#include "axis_runs.hpp"

namespace gsprune {

namespace {

constexpr int none = -1;

/// Partials of one axis lie as (outer, length, inner); outer is counted per tile.
struct Fold {
    int axis = none;
    std::int64_t outer = 1;
    std::int64_t length = 1;
    std::int64_t inner = 1;
};

/// A tensor as rows x columns, and which axis is summed from its row and its column partials.
struct Matrix {
    std::int64_t rows;
    std::int64_t columns;
    Fold by_row;
    Fold by_column;
    std::size_t tile = 0;        // index
    std::int64_t num_tiles = 0;  // of that kind

    void choose_tile(const std::vector<Tile>& tiles) noexcept {
        tile = best_tile(rows, columns, tiles);
        num_tiles = count_tiles(rows, columns, tiles[tile]);
    }
};

/// The matrix whose partials give the sums along one or two axes, in as few tiles as can be.
Matrix as_matrix(const View& view, const Order& order, const std::vector<int>& axes, const std::vector<Tile>& tiles) {
    const std::vector<AxisRun> runs = axis_runs(view, order, axes);
    const std::int64_t before = runs[0].size;
    const AxisRun& first = runs[1];
    if (axes.size() == 2) {
        const std::int64_t between = runs[2].size;
        const AxisRun& second = runs[3];
        const std::int64_t after = runs[4].size;
        Matrix matrix{before * first.size,
                      between * second.size * after,
                      {first.axis, before, first.size, 1},
                      {second.axis, between, second.size, after}};
        matrix.choose_tile(tiles);
        return matrix;
    }
    const std::int64_t after = runs[2].size;
    Matrix rows{before * first.size, after, {first.axis, before, first.size, 1}, {}};
    Matrix columns{before, first.size * after, {}, {first.axis, 1, first.size, after}};
    rows.choose_tile(tiles);
    columns.choose_tile(tiles);
    return rows.num_tiles <= columns.num_tiles ? rows : columns;
}

/// One read of one tensor.
struct Task {
    const SumJob* job;
    Matrix matrix;
    std::int64_t first_sum;  // of the job, in the flat array

    /// Where in the flat array the sums of an axis begin.
    [[nodiscard]] std::int64_t sums_of(int axis) const noexcept {
        std::int64_t at = first_sum;
        for (const int other : job->axes) {
            if (other == axis) break;
            at += job->values.shape[static_cast<std::size_t>(other)];
        }
        return at;
    }
};

std::vector<Task> tasks_of(const std::vector<SumJob>& jobs, const std::vector<Tile>& tiles, std::int64_t& num_sums) {
    std::vector<Task> tasks;
    tasks.reserve(jobs.size());
    for (const SumJob& job : jobs) {
        const Order order = memory_order(job.values);
        for (std::size_t i = 0; i < job.axes.size(); i += 2) {
            const std::size_t end = std::min(i + 2, job.axes.size());
            const std::vector<int> axes(job.axes.begin() + static_cast<std::ptrdiff_t>(i),
                                        job.axes.begin() + static_cast<std::ptrdiff_t>(end));
            tasks.push_back({&job, as_matrix(job.values, order, axes, tiles), num_sums});
        }
        for (const int axis : job.axes) num_sums += job.values.shape[static_cast<std::size_t>(axis)];
    }
    return tasks;
}

}  // namespace

ScoreTables score_tables(const std::vector<SumJob>& jobs, const ScoreTiling& tiling) {
    ScoreTables result;
    const std::vector<Task> tasks = tasks_of(jobs, tiling.tiles, result.num_sums);
    std::int64_t all_tiles = 0;
    for (const Task& task : tasks) all_tiles += task.matrix.num_tiles;
    const std::int64_t most_steps = std::clamp<std::int64_t>(all_tiles / tiling.busy_tiles, 1, tiling.max_steps);

    std::vector<std::int64_t> rows;
    std::vector<std::int64_t> fold_ends;
    std::vector<std::int64_t> fold_rows;
    for (const Task& task : tasks) {
        const Matrix& matrix = task.matrix;
        const Tile& tile = tiling.tiles[matrix.tile];
        const std::int64_t column_tiles = ceil_div(matrix.columns, tile.columns);
        const std::int64_t steps = std::clamp<std::int64_t>(ceil_div(matrix.rows, tile.rows), 1, most_steps);
        const std::int64_t row_tiles = ceil_div(matrix.rows, tile.rows * steps);
        result.programs += row_tiles * column_tiles;
        result.table.push_back(result.programs);
        const auto add_fold = [&](const Fold& fold, std::int64_t num_tiles, std::int64_t length) -> std::int64_t {
            if (fold.axis == none) return none;
            const std::int64_t start = result.num_partials;
            result.num_partials += num_tiles * length;
            result.fold_programs += ceil_div(fold.length, tiling.fold_outputs);
            fold_ends.push_back(result.fold_programs);
            fold_rows.insert(fold_rows.end(),
                             {start, num_tiles * fold.outer, fold.length, fold.inner, task.sums_of(fold.axis)});
            return start;
        };
        const std::int64_t row_partials = add_fold(matrix.by_row, column_tiles, matrix.rows);
        const std::int64_t column_partials = add_fold(matrix.by_column, row_tiles, matrix.columns);
        rows.insert(rows.end(), {address_of(task.job->values), address_of(task.job->others),
                                 static_cast<std::int64_t>(task.job->dtype), matrix.rows, matrix.columns, column_tiles,
                                 steps, static_cast<std::int64_t>(matrix.tile), row_partials, column_partials});
    }
    check_programs(result.programs, "scoring");
    check_programs(result.fold_programs, "folding the scores");
    result.num_jobs = static_cast<std::int64_t>(tasks.size());
    result.num_folds = static_cast<std::int64_t>(fold_ends.size());
    result.table.insert(result.table.end(), rows.begin(), rows.end());
    result.fold_base = static_cast<std::int64_t>(result.table.size());
    result.table.insert(result.table.end(), fold_ends.begin(), fold_ends.end());
    result.table.insert(result.table.end(), fold_rows.begin(), fold_rows.end());
    return result;
}

}  // namespace gsprune
