#pragma once

#include <pybind11/pybind11.h>

namespace gsprune {

void bind_plans(pybind11::module_& module);

}  // namespace gsprune
