#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "machine/isa.hpp"

// Argument checks that several bindings share. They throw ValueError or TypeError with the argument's name.

namespace gsprune {

inline std::string text(std::int64_t value) { return std::to_string(value); }
inline std::string text(std::size_t value) { return std::to_string(value); }

/// An entry such as `tensors[7]`, formatted only for messages.
struct ArgumentName {
    const char* list;
    std::size_t index;
    [[nodiscard]] std::string text() const { return std::string(list) + "[" + std::to_string(index) + "]"; }
};

/// Converts an integer of that argument; TypeError if it is none or needs more than 64 bits.
std::int64_t read_integer(pybind11::handle value, const ArgumentName& argument);

/// Checks that the list `name` has one entry per tensor.
void check_length(std::size_t got, std::size_t expected, const char* name);

void check_threads(int num_threads);

/// "auto" is the best instruction set of the machine. Others must be supported by it.
Isa parse_isa(const std::string& name);

/// The member of `Enum` with that name; `names` are in the order of `Enum`.
template <class Enum, std::size_t count>
Enum parse_name(const std::string& name, const char* const (&names)[count], const char* argument) {
    std::string allowed;
    for (std::size_t i = 0; i < count; ++i) {
        if (name == names[i]) return static_cast<Enum>(i);
        allowed += (i == 0 ? "'" : i + 1 == count ? "' or '" : "', '") + std::string(names[i]);
    }
    throw pybind11::value_error("`" + std::string(argument) + "` must be " + allowed + "', got '" + name + "'");
}

/// A `types.SimpleNamespace`. (Making an object of a pybind11 class crashes when memory runs out.)
pybind11::object as_namespace(const pybind11::dict& fields);

/// Names as a Python tuple.
template <std::size_t count>
pybind11::tuple as_tuple(const char* const (&names)[count]) {
    pybind11::tuple tuple(count);
    for (std::size_t i = 0; i < count; ++i) tuple[i] = pybind11::str(names[i]);
    return tuple;
}

}  // namespace gsprune
