// The module `gsprune._core` with one submodule per topic. Only the files of this folder use Python. They check every
// argument, own the results and release the GIL during the work.

#include <pybind11/pybind11.h>

#include "python/bindings.hpp"

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of gsprune.";
    module.attr("sources") = GSPRUNE_SOURCES;  // defined by setup.py
    const auto bind = [&module](const char* name, void (*fill)(pybind11::module_&), const char* doc) {
        pybind11::module_ submodule = module.def_submodule(name, doc);
        fill(submodule);
    };
    bind("launch", &gsprune::bind_launch, "Tables and results of the Triton kernels.");
    bind("machine", &gsprune::bind_machine, "Properties of this machine.");
    bind("memory", &gsprune::bind_memory, "The memory pool of new tensors.");
    bind("score", &gsprune::bind_score, "Sums of statistics along axes.");
    bind("select", &gsprune::bind_select, "Selection of the kept units.");
    bind("slice", &gsprune::bind_slice, "Planning, slicing and rewriting.");
    bind("tensor", &gsprune::bind_tensor, "The connection to torch.");
}
