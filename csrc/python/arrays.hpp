#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

// Contiguous NumPy arrays of exactly these dtypes, read without a copy.

namespace gsprune {

using IndexArray = pybind11::array_t<std::int64_t, pybind11::array::c_style>;
using ScoreArray = pybind11::array_t<float, pybind11::array::c_style>;
using BoolArray = pybind11::array_t<bool, pybind11::array::c_style>;
using SumArray = pybind11::array_t<double, pybind11::array::c_style>;

// The checks throw ValueError with the argument's name.

/// Requires one dimension and aligned memory.
void check_vector(const pybind11::array& array, const char* name);

/// Requires a vector with `size` entries.
void check_size(const pybind11::array& array, std::int64_t size, const char* name);

/// Requires an ascending vector that begins with 0.
void check_bounds(const IndexArray& bounds, const char* name);

}  // namespace gsprune
