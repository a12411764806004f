#include "python/arguments.hpp"

namespace py = pybind11;

namespace gsprune {

std::int64_t read_integer(py::handle value, const ArgumentName& argument) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));  // accepts NumPy's integers
    const long long integer = number ? PyLong_AsLongLong(number.ptr()) : -1;
    if (integer != -1 || PyErr_Occurred() == nullptr) return integer;
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0 && PyErr_ExceptionMatches(PyExc_OverflowError) == 0) {
        throw py::error_already_set();
    }
    PyErr_Clear();
    throw py::type_error("`" + argument.text() + "` needs integers that fit 64 bits, got " +
                         py::repr(value).cast<std::string>());
}

void check_length(std::size_t got, std::size_t expected, const char* name) {
    if (got != expected) {
        throw py::value_error(std::string("`") + name + "` must have an entry per tensor, that is " + text(expected) +
                              ", got " + text(got));
    }
}

void check_threads(int num_threads) {
    if (num_threads < 1) throw py::value_error("`num_threads` must be >= 1, got " + std::to_string(num_threads));
}

py::object as_namespace(const py::dict& fields) {
    static const auto* const type = new py::object(py::module_::import("types").attr("SimpleNamespace"));
    return (*type)(**fields);
}

Isa parse_isa(const std::string& name) {
    if (name == "auto") return best_isa();
    for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
        if (name == isa_names[i]) return static_cast<Isa>(i);
    }
    const std::string best = isa_names[static_cast<int>(best_isa())];
    throw py::value_error("`isa` must be 'auto', 'plain' or 'avx2', at most '" + best + "' on this machine, got '" +
                          name + "'");
}

}  // namespace gsprune
