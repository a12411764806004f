#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "tensor/dlpack.hpp"
#include "score/axis_sums.hpp"

namespace gsprune {

Statistic parse_statistic(const std::string& name);

/// The checked jobs of a call, without results. All tensors must be on `device`; `others` is a list, or None if the
/// statistic reads no second tensor. Throws ValueError or TypeError.
std::vector<SumJob> read_sum_jobs(const pybind11::list& tensors, const pybind11::list& axes,
                                  const pybind11::object& others, Statistic statistic, const dlpack::Device& device);

}  // namespace gsprune
