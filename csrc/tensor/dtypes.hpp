#pragma once

#include <cstdint>

namespace gsprune {

/// Dtypes that can be summed; slicing moves bytes of any dtype. Python and the Triton kernels use this list.
enum class DType : std::uint8_t { float32, float64, bfloat16, float16 };
constexpr const char* dtype_names[] = {"float32", "float64", "bfloat16", "float16"};

struct Bfloat16 {
    std::uint16_t bits;
};

struct Float16 {
    std::uint16_t bits;
};

}  // namespace gsprune
