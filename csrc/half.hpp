#pragma once

#include <cstdint>

namespace gsprune {

struct Bfloat16 {
    std::uint16_t bits;
};

struct Float16 {
    std::uint16_t bits;
};

}  // namespace gsprune
