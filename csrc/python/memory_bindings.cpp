#include "memory/block_pool.hpp"
#include "python/bindings.hpp"

namespace py = pybind11;

namespace gsprune {

void bind_memory(py::module_& module) {
    module.def(
        "pool_use",
        [] {
            const PoolUse use = pool_use();
            return py::make_tuple(use.in_use, use.in_reserve);
        },
        "Bytes of all blocks in use, and of those in reserve.");
    module.def("trim_reserve", &trim_reserve, "Give reserved memory back; returns the number of bytes.");
}

}  // namespace gsprune
