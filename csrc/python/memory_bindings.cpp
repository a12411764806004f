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
        "Bytes of the blocks in use and of the reserve.");
    module.def("trim_reserve", &trim_reserve, "Free the reserve; returns the number of bytes.");
}

}  // namespace gsprune
