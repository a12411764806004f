#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "python/arrays.hpp"

namespace gsprune {

/// Per cut its pairs of (axis, vector).
using Cuts = std::vector<std::vector<std::pair<std::int64_t, std::size_t>>>;

/// An integer that depends on a vector's length: (attributes, name, vector, multiplier, divisor).
using StoredInteger = std::tuple<pybind11::dict, pybind11::object, std::int64_t, std::int64_t, std::int64_t>;

/// The tensors of a module, the cut of each tensor, and the module's integers.
using ModuleParts = std::tuple<std::vector<pybind11::object>, std::vector<std::size_t>, std::vector<StoredInteger>>;

/// Plans a step: the tensors to slice and the integers to set. Changes nothing.
///
/// `keeps` are the kept positions of every vector (None: all), `starts` the start of every vector. `states` has
/// parameter -> state of every optimizer.
///
/// The fields of the result:
///   patterns: the distinct patterns;
///   tensors: the modules' tensors to slice, then gradients and optimizer states of their parameter's shape;
///   pattern_of: the pattern of each tensor;
///   num_owned, num_of_first: the number of tensors of all modules and of the first module;
///   entries: (attributes, name, value) of the integers to set;
///   others: (parameter, optimizer or None, key, value) of gradients and states of another shape, except scalars.
pybind11::object plan_cuts(const Cuts& cuts, const pybind11::list& keeps, const IndexArray& starts,
                           const std::vector<ModuleParts>& modules, const std::vector<pybind11::dict>& states);

}  // namespace gsprune
