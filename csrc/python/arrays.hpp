#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

// Contiguous NumPy arrays of exactly these dtypes, read without a copy.

namespace gsprune {

using IndexArray = pybind11::array_t<std::int64_t, pybind11::array::c_style>;
using ScoreArray = pybind11::array_t<float, pybind11::array::c_style>;
using BoolArray = pybind11::array_t<bool, pybind11::array::c_style>;
using SumArray = pybind11::array_t<double, pybind11::array::c_style>;

}  // namespace gsprune
