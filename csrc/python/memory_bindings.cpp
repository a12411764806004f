#include "memory/block_pool.hpp"
#include "python/bindings.hpp"

namespace py = pybind11;

namespace gsprune {

void bind_memory(py::module_& module) {
    py::class_<PoolUse>(module, "PoolUse")
        .def_readonly("in_use", &PoolUse::in_use)
        .def_readonly("in_reserve", &PoolUse::in_reserve);
    module.def("pool_use", &pool_use, "Bytes of all blocks in use, and of those in reserve.");
    module.def("trim_reserve", &trim_reserve, "Give reserved memory back; returns the number of bytes.");
}

}  // namespace gsprune
