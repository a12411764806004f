#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "isa.hpp"

namespace gsprune {

// Checks that several bindings share; all throw ValueError naming the argument.

inline std::string text(std::int64_t value) { return std::to_string(value); }
inline std::string text(std::size_t value) { return std::to_string(value); }

/// A list argument `name` has an entry per tensor.
void check_length(std::size_t got, std::size_t expected, const char* name);

void check_threads(int num_threads);

/// "auto" is the best of the machine; others must be known and not better than that.
Isa parse_isa(const std::string& name);

std::string best_isa_name();

}  // namespace gsprune
