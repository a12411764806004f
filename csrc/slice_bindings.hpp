#pragma once

#include <pybind11/pybind11.h>

namespace gsprune {

/// Adds what makes slices and finds what must be sliced.
void bind_slices(pybind11::module_& module);

}  // namespace gsprune
