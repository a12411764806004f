#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "isa.hpp"

namespace gsprune {

// Checks that several bindings share; they throw ValueError or TypeError naming the argument.

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

std::string best_isa_name();

}  // namespace gsprune
