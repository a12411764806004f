// The module. What takes tensors or arrays checks every argument, owns the results and releases the GIL around the
// work. Only the files named *bindings.cpp, *arguments.cpp, exchange, no_collection and torch_tensors know Python.

#include <pybind11/pybind11.h>

#include "arguments.hpp"
#include "array_bindings.hpp"
#include "exchange.hpp"
#include "last_level_cache.hpp"
#include "launch_bindings.hpp"
#include "memory.hpp"
#include "plan_bindings.hpp"
#include "score_bindings.hpp"
#include "slice_bindings.hpp"
#include "torch_tensors.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of gsprune.";
    module.attr("sources") = GSPRUNE_SOURCES;  // defined by setup.py
    gsprune::bind_arrays(module);
    gsprune::bind_scores(module);
    gsprune::bind_slices(module);
    gsprune::bind_launches(module);
    gsprune::bind_plans(module);
    module.def("bind_torch", &gsprune::bind_torch, py::arg("tensor_type"), py::arg("parameter_type"),
               py::arg("exchange_api"), py::arg("empty_strided"), py::arg("float_dtypes"),
               "Hand over what the core has to know of torch.");
    module.def("bind_exchange", &gsprune::bind_exchange, py::arg("set"), py::arg("untyped_storage"),
               py::arg("increment_version"), "Hand over what `rewrite` and `install_exchange` call of torch.");
    module.def("best_isa", &gsprune::best_isa_name,
               "The fastest instruction set of this machine that has kernels of its own.");
    module.def("last_level_cache_bytes", &gsprune::last_level_cache_bytes,
               "Size of the last-level cache of the first processor; 0 where the system does not say.");
    module.def("trim_reserve", &gsprune::trim_reserve, "Give reserved memory back; returns the number of bytes.");
    module.def(
        "pool_use",
        [] {
            const gsprune::PoolUse use = gsprune::pool_use();
            return py::make_tuple(use.in_use, use.in_reserve);
        },
        "Bytes of blocks in use, and of all else that the pool holds.");
}
