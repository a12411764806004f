#pragma once

#include <cstdint>
#include <vector>

#include "launch/launch.hpp"
#include "slice/slice.hpp"

namespace gsprune {

/// Constants of the slicing kernel in `kernels/slice.py`.
struct SliceTiling {
    std::vector<TileSize> tiles;
    std::int64_t max_columns;  // the most words per matrix row that the kernel can count
    StepLimits limits;
};

/// The table of one launch that slices all tensors.
///
/// In memory order a tensor is (before, first axis, between, second axis, after): a matrix of before * first rows of
/// between * second * after words. A word is the largest of 1, 2, 4 and 8 bytes that divides the address and the bytes
/// after the last sliced axis.
///
/// Fields of a job: first program, source, target, word, index of the tile size, rows, columns, column tiles, steps,
/// pitch; kept size, full size and start of the positions of the first axis; kept size and full size of the second
/// axis, words after it, start of its positions. The lists of positions follow the jobs and begin with a single zero.
struct SliceTables {
    std::vector<std::int64_t> table;
    std::int64_t num_jobs = 0;
    std::int64_t keep_base = 0;  // index of the positions in the table
    std::int64_t owners = 0;     // index of the programs' job numbers
    std::int64_t programs = 0;
};

/// Sources must be dense. Axes from the second on are merged into one, with the dimensions between them.
/// Throws std::invalid_argument if a matrix or a grid gets too large.
SliceTables slice_tables(const std::vector<SliceJob>& jobs, const std::vector<SlicePattern>& patterns,
                         const SliceTiling& tiling);

}  // namespace gsprune
