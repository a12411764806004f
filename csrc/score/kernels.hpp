#pragma once

#include <cstddef>
#include <cstdint>

#include "score/axis_sums.hpp"

namespace gsprune {

/// A part of a matrix with contiguous rows; strides count elements.
struct Panel {
    const std::byte* values;
    const std::byte* others;  // the second factor, in the layout of `values`
    std::int64_t row_stride;
    std::int64_t num_rows;
    std::int64_t num_cols;
    double* row_sums;  // num_rows, written
    double* col_sums;  // num_cols, written
};

/// All kernels add in the same order: the columns of a row in eight lanes (column j in lane j mod 8), the rows of a
/// column in groups of four, beginning with the first row.
using PanelKernel = void (*)(const Panel&) noexcept;

PanelKernel plain_panel_kernel(DType dtype, Statistic statistic) noexcept;
#ifdef GSPRUNE_HAS_AVX
PanelKernel avx2_panel_kernel(DType dtype, Statistic statistic) noexcept;
#endif

}  // namespace gsprune
