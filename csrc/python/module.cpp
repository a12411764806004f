// The module `gsprune._core` with a submodule per topic. The files of this folder are the only ones that know Python:
// they check every argument, own the results and release the GIL around the work.

#include <pybind11/pybind11.h>

#include "python/bindings.hpp"

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of gsprune.";
    module.attr("sources") = GSPRUNE_SOURCES;  // defined by setup.py
    const auto bind = [&module](const char* name, void (*fill)(pybind11::module_&), const char* doc) {
        pybind11::module_ submodule = module.def_submodule(name, doc);
        fill(submodule);
    };
    bind("launch", &gsprune::bind_launch, "What the Triton kernels work on.");
    bind("machine", &gsprune::bind_machine, "What the core found out about this machine.");
    bind("memory", &gsprune::bind_memory, "The memory that new tensors stand on.");
    bind("score", &gsprune::bind_score, "Sums of statistics along axes.");
    bind("select", &gsprune::bind_select, "How many units stay, and which.");
    bind("slice", &gsprune::bind_slice, "The plan of a step, its slices, and all its changes at once.");
    bind("tensor", &gsprune::bind_tensor, "What the core knows of torch.");
    bind("units", &gsprune::bind_units, "Groups as flat arrays of units.");
}
