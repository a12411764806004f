#include "python/arrays.hpp"

#include <string>

#include "python/arguments.hpp"

namespace py = pybind11;

namespace gsprune {

void check_vector(const py::array& array, const char* name) {
    if (array.ndim() != 1) {
        throw py::value_error(std::string("`") + name + "` must have one dimension, got " + text(array.ndim()));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(array.itemsize()) != 0) {
        throw py::value_error(std::string("`") + name + "` must be aligned to its elements; copy the array");
    }
}

void check_size(const py::array& array, std::int64_t size, const char* name) {
    check_vector(array, name);
    if (array.size() != size) {
        throw py::value_error(std::string("`") + name + "` must have " + text(size) + " entries, got " +
                              text(array.size()));
    }
}

void check_bounds(const IndexArray& bounds, const char* name) {
    check_vector(bounds, name);
    const std::int64_t* values = bounds.data();
    bool is_good = bounds.size() > 0 && values[0] == 0;
    for (std::int64_t i = 1; is_good && i < bounds.size(); ++i) is_good = values[i] >= values[i - 1];
    if (!is_good) throw py::value_error(std::string("`") + name + "` must begin at 0 and not decrease");
}

}  // namespace gsprune
