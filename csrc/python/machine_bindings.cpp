#include "machine/isa.hpp"
#include "machine/last_level_cache.hpp"
#include "python/bindings.hpp"

namespace py = pybind11;

namespace gsprune {

void bind_machine(py::module_& module) {
    module.def(
        "best_isa", [] { return isa_names[static_cast<int>(best_isa())]; },
        "The fastest instruction set of this machine with its own kernels.");
    module.def("last_level_cache_bytes", &last_level_cache_bytes,
               "Size of the last-level cache of the first processor; 0 if unknown.");
}

}  // namespace gsprune
