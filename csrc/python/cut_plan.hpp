#pragma once

#include <pybind11/pybind11.h>

#include "python/arrays.hpp"

namespace gsprune {

/// Plans a step: the tensors to slice and the integers to set. Changes nothing.
///
/// `cuts` are tuples of (axis, vector). `keeps` are the kept positions of every vector (None: all), `starts` the start
/// of every vector. A module is (tensors, cut of each tensor, values); the values are (attributes, name, vector,
/// multiplier, divisor) of integers that depend on a vector's length. `states` has parameter -> state of every
/// optimizer.
///
/// The fields of the result:
///   patterns: the distinct patterns;
///   tensors: the modules' tensors to slice, then gradients and optimizer states of their parameter's shape;
///   pattern_of: the pattern of each tensor;
///   num_owned, num_of_first: the number of tensors of all modules and of the first module;
///   entries: (attributes, name, value) of the integers to set;
///   others: (parameter, optimizer or None, key, value) of gradients and states of another shape, except scalars.
pybind11::object plan_cuts(const pybind11::tuple& cuts, const pybind11::list& keeps, const IndexArray& starts,
                           const pybind11::list& modules, const pybind11::list& states);

}  // namespace gsprune
