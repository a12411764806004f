#pragma once

#include <cstdint>
#include <vector>

#include "launch/launch.hpp"
#include "score/axis_sums.hpp"

namespace gsprune {

/// Constants of the scoring kernels in `kernels/score.py`.
struct ScoreTiling {
    std::vector<TileSize> tiles;
    std::int64_t fold_outputs;
    StepLimits limits;
};

/// The table of two launches: the first reads all tensors, the second folds the partial sums.
///
/// Fields of a job of the first launch: first program, address, address of the other tensor, dtype, rows, columns,
/// column tiles, steps, index of the tile size, start of the row partials, start of the column partials (-1: not
/// needed). Fields of a fold of the second launch: first program, start of its partials, their layout (outer, length,
/// inner), index of its first sum. The kernel sums over outer and inner.
struct ScoreTables {
    std::vector<std::int64_t> table;
    std::int64_t num_jobs = 0;
    std::int64_t owners = 0;     // index of the first launch's job numbers in the table
    std::int64_t fold_base = 0;  // index of the second launch's fields
    std::int64_t num_folds = 0;
    std::int64_t fold_owners = 0;
    std::int64_t programs = 0;
    std::int64_t fold_programs = 0;
    std::int64_t num_partials = 0;
    std::int64_t num_sums = 0;
};

/// Tensors must be dense, with the layout of their others. A tensor with more than two axes is read once per two axes.
/// Throws std::invalid_argument if a grid gets too large.
ScoreTables score_tables(const std::vector<SumJob>& jobs, const ScoreTiling& tiling);

}  // namespace gsprune
