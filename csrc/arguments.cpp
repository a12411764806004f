#include "arguments.hpp"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace gsprune {

namespace {

constexpr const char* isa_names[] = {"plain", "avx2", "avx512"};

}  // namespace

void check_length(std::size_t got, std::size_t expected, const char* name) {
    if (got != expected) {
        throw py::value_error(std::string("`") + name + "` must have an entry per tensor, that is " + text(expected) +
                              ", got " + text(got));
    }
}

void check_threads(int num_threads) {
    if (num_threads < 1) throw py::value_error("`num_threads` must be >= 1, got " + std::to_string(num_threads));
}

std::string best_isa_name() { return isa_names[static_cast<int>(best_isa())]; }

Isa parse_isa(const std::string& name) {
    if (name == "auto") return best_isa();
    for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
        if (name == isa_names[i]) return static_cast<Isa>(i);
    }
    throw py::value_error("`isa` must be 'auto', or 'plain', 'avx2' or 'avx512' up to '" + best_isa_name() +
                          "', the best of this machine, got '" + name + "'");
}

}  // namespace gsprune
