#include "select.hpp"

#include <algorithm>
#include <cstring>

namespace gsprune {

namespace {

/// An unsigned integer that orders as the floats do.
std::uint32_t ordered_bits(float value) noexcept {
    const float positive_zero = value + 0.0F;  // -0.0 + 0.0 is +0.0
    std::uint32_t bits = 0;
    std::memcpy(&bits, &positive_zero, sizeof bits);
    return (bits & 0x80000000U) != 0U ? ~bits : bits | 0x80000000U;
}

/// Small keys are the best: the complement of the score above the index, so that ties go to the lower index.
std::uint64_t key_of(const float* scores, std::int64_t index) noexcept {
    return (static_cast<std::uint64_t>(~ordered_bits(scores[index])) << 32U) | static_cast<std::uint64_t>(index);
}

}  // namespace

void select_highest(const float* scores, std::int64_t num_scores, std::int64_t num_kept, std::uint64_t* keys,
                    std::int64_t* kept) noexcept {
    if (num_kept == 0) return;
    for (std::int64_t i = 0; i < num_scores; ++i) keys[i] = key_of(scores, i);
    std::nth_element(keys, keys + (num_kept - 1), keys + num_scores);
    const std::uint64_t worst = keys[num_kept - 1];
    for (std::int64_t i = 0; i < num_scores; ++i) {
        if (key_of(scores, i) <= worst) *kept++ = i;
    }
}

}  // namespace gsprune
