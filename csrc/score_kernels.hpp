#pragma once

#include <cstddef>
#include <cstdint>

#include "score.hpp"

namespace gsprune {

/// A part of a matrix whose rows are contiguous; strides count elements.
struct MatrixTile {
    const std::byte* values;
    const std::byte* others;
    std::int64_t row_stride;
    std::int64_t num_rows;
    std::int64_t num_cols;
    double* row_sums;  // num_rows, written
    double* col_sums;  // num_cols, written
};

/// Rows are summed in eight lanes (column j goes to lane j mod 8), columns in groups of four rows from the first on;
/// every kernel keeps to this order.
using TileKernel = void (*)(const MatrixTile&) noexcept;

TileKernel plain_tile_kernel(DType dtype, Statistic statistic) noexcept;
TileKernel avx2_tile_kernel(DType dtype, Statistic statistic) noexcept;
TileKernel avx512_tile_kernel(DType dtype, Statistic statistic) noexcept;

}  // namespace gsprune
