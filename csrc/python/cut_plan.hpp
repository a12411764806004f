#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>

#include "python/arrays.hpp"

namespace gsprune {

/// What a step slices, and which integers it sets.
struct CutPlan {
    pybind11::list patterns;    // distinct ones
    pybind11::list tensors;     // of all modules, then gradients and optimizer states of their parameter's shape
    pybind11::list pattern_of;  // of each tensor
    std::size_t num_owned;      // how many of the tensors are the modules'
    std::size_t num_of_first;   // how many are the first module's
    pybind11::list entries;     // (attributes, name, value) of integers that change
    pybind11::list others;      // (parameter, optimizer or None, key, value) of gradients and states that are neither
                                // like their parameter nor a scalar
};

/// Changes nothing. `cuts` are tuples of (axis, vector); `keeps` are the positions kept of every vector, None where all
/// are; `starts` says where vectors begin. A module is (tensors, their cuts, (attributes, name, vector, multiplier,
/// divisor) of integers that follow vectors). `states` are parameter -> state, per optimizer.
CutPlan plan_cuts(const pybind11::tuple& cuts, const pybind11::list& keeps, const IndexArray& starts,
                  const pybind11::list& modules, const pybind11::list& states);

}  // namespace gsprune
