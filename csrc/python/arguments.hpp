#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "machine/isa.hpp"

// Checks that several bindings share; they throw ValueError or TypeError naming the argument.

namespace gsprune {

inline std::string text(std::int64_t value) { return std::to_string(value); }
inline std::string text(std::size_t value) { return std::to_string(value); }

/// `tensors[7]`, spelled out only for messages.
struct ArgumentName {
    const char* list;
    std::size_t index;
    [[nodiscard]] std::string text() const { return std::string(list) + "[" + std::to_string(index) + "]"; }
};

/// The integer that `value`, which stands in that argument, must be; else TypeError.
std::int64_t read_integer(pybind11::handle value, const ArgumentName& argument);

/// A list argument `name` has an entry per tensor.
void check_length(std::size_t got, std::size_t expected, const char* name);

void check_threads(int num_threads);

/// "auto" is the best of the machine; others must be known and not better than that.
Isa parse_isa(const std::string& name);

/// The member of `Enum` that `names` calls so; `names` are in its order.
template <class Enum, std::size_t count>
Enum parse_name(const std::string& name, const char* const (&names)[count], const char* argument) {
    std::string allowed;
    for (std::size_t i = 0; i < count; ++i) {
        if (name == names[i]) return static_cast<Enum>(i);
        allowed += (i == 0 ? "'" : i + 1 == count ? "' or '" : "', '") + std::string(names[i]);
    }
    throw pybind11::value_error("`" + std::string(argument) + "` must be " + allowed + "', got '" + name + "'");
}

/// A `types.SimpleNamespace`: results with names. (Making an object of a class of pybind11 crashes without memory.)
pybind11::object as_namespace(const pybind11::dict& fields);

/// Names as a tuple, for Python to read.
template <std::size_t count>
pybind11::tuple as_tuple(const char* const (&names)[count]) {
    pybind11::tuple tuple(count);
    for (std::size_t i = 0; i < count; ++i) tuple[i] = pybind11::str(names[i]);
    return tuple;
}

}  // namespace gsprune
