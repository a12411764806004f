#pragma once

#include <pybind11/pybind11.h>

#include "python/arrays.hpp"

namespace gsprune {

/// The plan of a step: the tensors to slice and the integers to set. Changes nothing.
///
/// `cuts` are tuples of (axis, vector); `keeps` are the positions kept of every vector, None where all are; `starts`
/// says where vectors begin. A module is (tensors, their cuts, (attributes, name, vector, multiplier, divisor) of
/// integers that follow vectors). `states` are parameter -> state, per optimizer.
///
/// The result has the fields
///   patterns: the distinct ones;
///   tensors: those of all modules that are cut, then gradients and optimizer states of their parameter's shape;
///   pattern_of: the pattern of each tensor;
///   num_owned, num_of_first: how many of the tensors are the modules', and the first one's;
///   entries: (attributes, name, value) of integers that change;
///   others: (parameter, optimizer or None, key, value) of gradients and states that are neither like their parameter
///     nor a scalar.
pybind11::object plan_cuts(const pybind11::tuple& cuts, const pybind11::list& keeps, const IndexArray& starts,
                           const pybind11::list& modules, const pybind11::list& states);

}  // namespace gsprune
