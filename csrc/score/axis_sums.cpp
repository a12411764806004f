#include "score/axis_sums.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "tensor/ceil_div.hpp"
#include "parallel/tasks.hpp"
#include "score/kernels.hpp"

namespace gsprune {

namespace {

// The column sums of a panel (16 KB) fit into the first-level cache.
constexpr std::int64_t max_panel_cols = 2048;
// A panel of 64 K elements takes about 20 us: long compared to claiming it, short compared to a whole network.
constexpr std::int64_t min_panel_elements = 65536;
// Every panel leaves one vector of column sums to combine, so large tensors get taller panels.
constexpr std::int64_t min_panel_rows = 32;
constexpr std::int64_t max_panel_rows = 128;
// Shorter rows spend their time in horizontal sums. They are joined while the column sums stay small.
constexpr std::int64_t short_row = 32;
constexpr std::int64_t max_joined_cols = 65536;

/// A tensor as a matrix: order[0..split) are its rows, the faster dimensions its columns.
struct MatrixJob {
    const SumJob* job = nullptr;
    Order order{};
    int split = 0;
    std::int64_t num_rows = 1;
    std::int64_t num_cols = 1;
    std::int64_t panel_rows = 0;
    std::int64_t num_row_panels = 0;
    std::int64_t num_col_panels = 0;
    std::int64_t first_task = 0;
    double* row_partials = nullptr;  // (num_col_panels, num_rows)
    double* col_partials = nullptr;  // (num_row_panels, num_cols)

    [[nodiscard]] std::int64_t size_at(int position) const noexcept {
        return job->values.shape[static_cast<std::size_t>(order[static_cast<std::size_t>(position)])];
    }
    [[nodiscard]] std::int64_t num_tasks() const noexcept { return num_row_panels * num_col_panels; }
    [[nodiscard]] std::int64_t num_partials() const noexcept {
        return num_col_panels * num_rows + num_row_panels * num_cols;
    }
};

void choose_split(MatrixJob& matrix) noexcept {
    const int ndim = matrix.job->values.ndim;
    const auto is_wanted = [&](int position) {
        const int dim = matrix.order[static_cast<std::size_t>(position)];
        const auto& axes = matrix.job->axes;
        return std::find(axes.begin(), axes.end(), dim) != axes.end();
    };
    int split = 0;
    while (split < ndim && !is_wanted(split)) ++split;
    split = std::min(split + 1, ndim);
    std::int64_t num_cols = 1;
    for (int position = split; position < ndim; ++position) num_cols *= matrix.size_at(position);
    while (split > 0 && num_cols < short_row && num_cols * matrix.size_at(split - 1) <= max_joined_cols) {
        --split;
        num_cols *= matrix.size_at(split);
    }
    matrix.split = split;
    matrix.num_cols = num_cols;
    matrix.num_rows = matrix.job->values.numel() / num_cols;
}

MatrixJob plan_matrix(const SumJob& job) noexcept {
    MatrixJob matrix;
    matrix.job = &job;
    matrix.order = memory_order(job.values);
    choose_split(matrix);
    const std::int64_t panel_cols = std::min(matrix.num_cols, max_panel_cols);
    const std::int64_t wanted_rows = std::clamp(matrix.num_rows / 8, min_panel_rows, max_panel_rows);
    matrix.panel_rows = ceil_div(std::max(wanted_rows, ceil_div(min_panel_elements, panel_cols)), 4) * 4;
    matrix.num_row_panels = ceil_div(matrix.num_rows, matrix.panel_rows);
    matrix.num_col_panels = ceil_div(matrix.num_cols, max_panel_cols);
    return matrix;
}

void sum_panel(const MatrixJob& matrix, std::int64_t panel_index, PanelKernel kernel) noexcept {
    const std::int64_t row_panel = panel_index / matrix.num_col_panels;
    const std::int64_t col_panel = panel_index % matrix.num_col_panels;
    const std::int64_t row = row_panel * matrix.panel_rows;
    const std::int64_t col = col_panel * max_panel_cols;
    const std::int64_t offset = (row * matrix.num_cols + col) * matrix.job->values.itemsize;
    const Panel panel{matrix.job->values.data + offset,
                      matrix.job->others.data + offset,
                      matrix.num_cols,
                      std::min(matrix.panel_rows, matrix.num_rows - row),
                      std::min(max_panel_cols, matrix.num_cols - col),
                      matrix.row_partials + col_panel * matrix.num_rows + row,
                      matrix.col_partials + row_panel * matrix.num_cols + col};
    kernel(panel);
}

/// Adds the other `count - 1` vectors of partial sums to the first one, in order.
void combine(double* partials, std::int64_t count, std::int64_t length) noexcept {
    for (std::int64_t part = 1; part < count; ++part) {
        const double* addend = partials + part * length;
        for (std::int64_t i = 0; i < length; ++i) partials[i] += addend[i];
    }
}

/// out[i] = sum over a and b of sums[a][i][b].
void reduce(const double* sums, std::int64_t before, std::int64_t size, std::int64_t after, double* out) noexcept {
    std::fill(out, out + size, 0.0);
    for (std::int64_t a = 0; a < before; ++a) {
        const double* from = sums + a * size * after;
        std::int64_t i = 0;
        // Eight independent totals hide the latency of the additions.
        for (; i + 8 <= size; i += 8, from += 8 * after) {
            double totals[8] = {};
            for (std::int64_t b = 0; b < after; ++b) {
                for (std::int64_t j = 0; j < 8; ++j) totals[j] += from[j * after + b];
            }
            for (std::int64_t j = 0; j < 8; ++j) out[i + j] += totals[j];
        }
        for (; i < size; ++i, from += after) {
            double total = 0.0;
            for (std::int64_t b = 0; b < after; ++b) total += from[b];
            out[i] += total;
        }
    }
}

void finish(const MatrixJob& matrix) noexcept {
    combine(matrix.row_partials, matrix.num_col_panels, matrix.num_rows);
    combine(matrix.col_partials, matrix.num_row_panels, matrix.num_cols);
    const SumJob& job = *matrix.job;
    for (std::size_t i = 0; i < job.axes.size(); ++i) {
        const auto* found = std::find(matrix.order.begin(), matrix.order.end(), job.axes[i]);
        const int position = static_cast<int>(found - matrix.order.begin());
        const bool is_row = position < matrix.split;
        std::int64_t before = 1;
        std::int64_t after = 1;
        for (int p = is_row ? 0 : matrix.split; p < position; ++p) before *= matrix.size_at(p);
        for (int p = position + 1; p < (is_row ? matrix.split : job.values.ndim); ++p) after *= matrix.size_at(p);
        const double* sums = is_row ? matrix.row_partials : matrix.col_partials;
        reduce(sums, before, matrix.size_at(position), after, job.results[i]);
    }
}

PanelKernel find_kernel(Isa isa, DType dtype, Statistic statistic) noexcept {
#ifdef GSPRUNE_HAS_AVX
    if (isa == Isa::avx2) return avx2_panel_kernel(dtype, statistic);
#endif
    static_cast<void>(isa);
    return plain_panel_kernel(dtype, statistic);
}

void fill_zero(const SumJob& job) noexcept {
    for (std::size_t i = 0; i < job.axes.size(); ++i) {
        std::fill_n(job.results[i], job.values.shape[static_cast<std::size_t>(job.axes[i])], 0.0);
    }
}

std::vector<MatrixJob> plan(const std::vector<SumJob>& jobs) {
    std::vector<std::pair<std::int64_t, std::size_t>> order;
    order.reserve(jobs.size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        const std::int64_t size = jobs[i].values.numel();
        if (size == 0) {
            fill_zero(jobs[i]);
        } else {
            order.emplace_back(-size, i);
        }
    }
    // Largest first, so that no thread begins a large tensor when the others are done.
    std::sort(order.begin(), order.end());
    std::vector<MatrixJob> matrices;
    matrices.reserve(order.size());
    for (const auto& entry : order) matrices.push_back(plan_matrix(jobs[entry.second]));
    std::int64_t num_tasks = 0;
    for (MatrixJob& matrix : matrices) {
        matrix.first_task = num_tasks;
        num_tasks += matrix.num_tasks();
    }
    return matrices;
}

void sum_all(const std::vector<MatrixJob>& matrices, std::atomic<std::int64_t>* pending, Statistic statistic, Isa isa,
             int num_threads) {
    auto body = [&](std::int64_t task) noexcept {
        const auto after = std::upper_bound(matrices.begin(), matrices.end(), task,
                                            [](std::int64_t t, const MatrixJob& m) { return t < m.first_task; });
        const MatrixJob& matrix = *(after - 1);
        sum_panel(matrix, task - matrix.first_task, find_kernel(isa, matrix.job->dtype, statistic));
        // The thread that sums the last panel of a tensor combines the partial sums, in an order fixed by the shape.
        if (pending[&matrix - matrices.data()].fetch_sub(1, std::memory_order_acq_rel) == 1) finish(matrix);
    };
    const MatrixJob& last = matrices.back();
    parallel_for(last.first_task + last.num_tasks(), num_threads, body);
}

}  // namespace

void axis_sums(const std::vector<SumJob>& jobs, Statistic statistic, Isa isa, int num_threads) {
    std::vector<MatrixJob> matrices = plan(jobs);
    if (matrices.empty()) return;
    std::int64_t num_partials = 0;
    std::int64_t num_bytes = 0;
    for (const MatrixJob& matrix : matrices) {
        num_partials += matrix.num_partials();
        num_bytes += matrix.num_rows * matrix.num_cols * matrix.job->values.itemsize;
    }
    if (needs_other(statistic)) num_bytes *= 2;
    if (num_bytes < min_parallel_bytes) num_threads = 1;
    const std::unique_ptr<double[]> partials(new double[static_cast<std::size_t>(num_partials)]);
    const auto pending = std::make_unique<std::atomic<std::int64_t>[]>(matrices.size());
    double* next_partial = partials.get();
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        MatrixJob& matrix = matrices[i];
        matrix.row_partials = next_partial;
        matrix.col_partials = next_partial + matrix.num_col_panels * matrix.num_rows;
        next_partial += matrix.num_partials();
        pending[i].store(matrix.num_tasks(), std::memory_order_relaxed);
    }
    sum_all(matrices, pending.get(), statistic, isa, num_threads);
}

}  // namespace gsprune
