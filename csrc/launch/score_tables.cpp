#include "launch/score_tables.hpp"

#include "launch/axis_runs.hpp"

namespace gsprune {

namespace {

constexpr int none = -1;

/// The partial sums of an axis that one row or column of tiles makes: an (outer, length, inner) array.
struct Fold {
    int axis = none;
    std::int64_t outer = 1;
    std::int64_t length = 1;
    std::int64_t inner = 1;
};

/// A tensor as a matrix, with the partial sums that its rows and columns make.
struct Matrix {
    std::int64_t rows;
    std::int64_t columns;
    Fold by_row;
    Fold by_column;
    std::size_t tile = 0;  // index of the tile size
    std::int64_t num_tiles = 0;

    void choose_tile(const std::vector<TileSize>& tiles) noexcept {
        tile = best_tile(rows, columns, tiles);
        num_tiles = count_tiles(rows, columns, tiles[tile]);
    }
};

/// The matrix with the fewest tiles whose partials give the sums along one or two axes.
Matrix as_matrix(const View& view, const Order& order, const std::vector<int>& axes,
                 const std::vector<TileSize>& tiles) {
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

/// One pass over one tensor.
struct Task {
    const SumJob* job;
    Matrix matrix;
    std::int64_t first_sum;  // index of the job's first sum in the flat array

    /// Index of the first sum of an axis in the flat array.
    [[nodiscard]] std::int64_t first_sum_of(int axis) const noexcept {
        std::int64_t at = first_sum;
        for (const int other : job->axes) {
            if (other == axis) break;
            at += job->values.shape[static_cast<std::size_t>(other)];
        }
        return at;
    }
};

std::vector<Task> tasks_of(const std::vector<SumJob>& jobs, const std::vector<TileSize>& tiles,
                           std::int64_t& num_sums) {
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
    const std::int64_t most_steps = tiling.limits.most_steps(all_tiles);

    Owners owners("scoring");
    Owners fold_owners("folding the scores");
    std::vector<std::int64_t> folds;
    for (const Task& task : tasks) {
        const Matrix& matrix = task.matrix;
        const Grid grid(matrix.rows, matrix.columns, tiling.tiles[matrix.tile], most_steps);
        const auto add_fold = [&](const Fold& fold, std::int64_t num_tiles, std::int64_t length) -> std::int64_t {
            if (fold.axis == none) return none;
            const std::int64_t start = result.num_partials;
            result.num_partials += num_tiles * length;
            ++result.num_folds;
            folds.insert(folds.end(), {fold_owners.add(ceil_div(fold.length, tiling.fold_outputs)), start,
                                       num_tiles * fold.outer, fold.length, fold.inner, task.first_sum_of(fold.axis)});
            return start;
        };
        const std::int64_t row_partials = add_fold(matrix.by_row, grid.column_tiles, matrix.rows);
        const std::int64_t column_partials = add_fold(matrix.by_column, grid.row_tiles, matrix.columns);
        result.table.insert(result.table.end(),
                            {owners.add(grid.programs()), address_of(task.job->values), address_of(task.job->others),
                             static_cast<std::int64_t>(task.job->dtype), matrix.rows, matrix.columns, grid.column_tiles,
                             grid.steps, static_cast<std::int64_t>(matrix.tile), row_partials, column_partials});
    }
    result.num_jobs = static_cast<std::int64_t>(tasks.size());
    result.programs = owners.programs();
    result.fold_programs = fold_owners.programs();
    result.owners = owners.append_to(result.table);
    result.fold_base = static_cast<std::int64_t>(result.table.size());
    result.table.insert(result.table.end(), folds.begin(), folds.end());
    result.fold_owners = fold_owners.append_to(result.table);
    return result;
}

}  // namespace gsprune
