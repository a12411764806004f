#pragma once

#include <cstdint>
#include <vector>

#include "launch/launch.hpp"
#include "slice/slice.hpp"

namespace gsprune {

/// How the slicing kernel is made, see `kernels/slice.py`.
struct SliceTiling {
    std::vector<TileSize> tiles;  // of which a job's fields name one by its index
    std::int64_t max_columns;     // words in a row of a matrix that the kernel can count
    StepLimits limits;
};

/// What one launch that slices all tensors works on.
///
/// In memory order a tensor is (before, first axis, between, second axis, after): a matrix of before * first rows of
/// between * second * after words. A word is the largest of 1, 2, 4 and 8 bytes that divides what lies behind the last
/// sliced axis and the address. Per job: first program, source, target, word, tile, rows, columns, column tiles, steps,
/// pitch, then kept and full size of the first axis and where its kept positions begin, kept and full size of the
/// second, words behind it, and where its positions begin. All lists of positions stand behind the jobs; the first of
/// them is a single zero.
struct SliceTables {
    std::vector<std::int64_t> table;
    std::int64_t num_jobs = 0;
    std::int64_t keep_base = 0;  // where in the table the positions begin
    std::int64_t owners = 0;     // where the programs have their jobs
    std::int64_t programs = 0;
};

/// Sources are dense. Third and further axes are merged with the second, and with what lies between, into one.
///
/// Throws std::invalid_argument where a matrix or a grid gets too large.
SliceTables slice_tables(const std::vector<SliceJob>& jobs, const std::vector<SlicePattern>& patterns,
                         const SliceTiling& tiling);

}  // namespace gsprune
