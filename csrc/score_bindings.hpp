#pragma once

#include <pybind11/pybind11.h>

namespace gsprune {

/// Adds the sums along axes.
void bind_scores(pybind11::module_& module);

}  // namespace gsprune
