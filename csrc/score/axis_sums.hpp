#pragma once

#include <cstdint>
#include <vector>

#include "machine/isa.hpp"
#include "tensor/dtypes.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// The summand: |w|, w^2, w g, |w g| or (w g)^2 of a weight w and another tensor g. Python and the Triton kernels use
/// this list.
enum class Statistic { abs, square, product, abs_product, square_product };
constexpr const char* statistic_names[] = {"abs", "square", "product", "abs_product", "square_product"};

constexpr bool needs_other(Statistic statistic) noexcept {
    return statistic != Statistic::abs && statistic != Statistic::square;
}

/// Sums of one tensor over all dimensions but one axis, for several axes.
struct SumJob {
    View values;  // dense, at least one dimension
    View others;  // same layout; `values` if the statistic reads no second tensor
    DType dtype;
    std::vector<int> axes;         // distinct, each in [0, ndim)
    std::vector<double*> results;  // shape[axis] sums per axis, written by axis_sums
};

/// Computes all jobs in one pass over memory.
///
/// Sums are float64, added in an order that depends only on shapes and strides. So the bits are the same for any number
/// of threads and any instruction set. Throws std::bad_alloc before anything is written.
void axis_sums(const std::vector<SumJob>& jobs, Statistic statistic, Isa isa, int num_threads);

}  // namespace gsprune
