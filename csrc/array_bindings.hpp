#pragma once

#include <pybind11/pybind11.h>

namespace gsprune {

/// Adds the functions that take NumPy arrays alone.
void bind_arrays(pybind11::module_& module);

}  // namespace gsprune
