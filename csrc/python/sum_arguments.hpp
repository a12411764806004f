#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "tensor/dlpack.hpp"
#include "score/axis_sums.hpp"

namespace gsprune {

Statistic parse_statistic(const std::string& name);

/// The checked jobs of a call, without results. All tensors are dense, and second tensors have the layout of the first.
struct SumArguments {
    std::vector<SumJob> jobs;
    pybind11::list copies;  // of tensors that had another layout; they must outlive the jobs
};

/// All tensors must be on `device`; `others` is a list, or None if the statistic reads no second tensor. Throws
/// ValueError or TypeError.
SumArguments read_sum_arguments(const pybind11::list& tensors, const pybind11::list& axes,
                                const pybind11::object& others, Statistic statistic, const dlpack::Device& device);

}  // namespace gsprune
