#pragma once

#include <cstdint>
#include <vector>

#include "launch/launch.hpp"
#include "score/axis_sums.hpp"

namespace gsprune {

/// How the scoring kernels are made, see `kernels/score.py`.
struct ScoreTiling {
    std::vector<TileSize> tiles;  // of which a job's fields name one by its index
    std::int64_t fold_outputs;
    StepLimits limits;
};

/// What one launch that reads all tensors and one that folds its partial sums work on.
///
/// Per job of the first: first program, address, other address, dtype, rows, columns, column tiles, steps, tile, and
/// where its row and its column partials begin, -1 where nobody wants them. Per vector of the second: first program,
/// where its partials begin, outer, length, inner (they lie as these three, and are summed over the outer and the inner
/// one), and where its sums go: as a flat array, the axes of one tensor after the other.
struct ScoreTables {
    std::vector<std::int64_t> table;
    std::int64_t num_jobs = 0;
    std::int64_t owners = 0;     // where in the table the first launch's programs have their jobs
    std::int64_t fold_base = 0;  // where the second launch's vectors begin
    std::int64_t num_folds = 0;
    std::int64_t fold_owners = 0;
    std::int64_t programs = 0;
    std::int64_t fold_programs = 0;
    std::int64_t num_partials = 0;
    std::int64_t num_sums = 0;
};

/// Tensors are dense, and others lie as they do; a tensor with more than two axes is read once per two of them.
///
/// Throws std::invalid_argument where a grid gets too large.
ScoreTables score_tables(const std::vector<SumJob>& jobs, const ScoreTiling& tiling);

}  // namespace gsprune
