#pragma once

#include <pybind11/pybind11.h>

namespace gsprune {

// Each function fills the submodule of `_core` with its name.
void bind_launch(pybind11::module_& module);
void bind_machine(pybind11::module_& module);
void bind_memory(pybind11::module_& module);
void bind_score(pybind11::module_& module);
void bind_select(pybind11::module_& module);
void bind_slice(pybind11::module_& module);
void bind_tensor(pybind11::module_& module);

}  // namespace gsprune
