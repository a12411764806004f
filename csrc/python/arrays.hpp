#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

// NumPy arrays that are read where they lie: contiguous, of exactly these types.

namespace gsprune {

using IndexArray = pybind11::array_t<std::int64_t, pybind11::array::c_style>;
using ScoreArray = pybind11::array_t<float, pybind11::array::c_style>;
using BoolArray = pybind11::array_t<bool, pybind11::array::c_style>;
using SumArray = pybind11::array_t<double, pybind11::array::c_style>;

// The checks throw ValueError naming the argument.

/// One dimension, aligned.
void check_vector(const pybind11::array& array, const char* name);

/// A vector of that many entries.
void check_size(const pybind11::array& array, std::int64_t size, const char* name);

/// A vector that begins at 0 and never falls.
void check_bounds(const IndexArray& bounds, const char* name);

}  // namespace gsprune
