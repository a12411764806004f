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

}  // namespace

void select_highest(const float* scores, std::int64_t num_scores, std::int64_t num_kept, std::uint64_t* keys,
                    std::int64_t* kept) noexcept {
    if (num_kept == 0) return;
    // Small keys are the best: the complement of the score above the index, so that ties go to the lower index.
    for (std::int64_t i = 0; i < num_scores; ++i) {
        keys[i] = (static_cast<std::uint64_t>(~ordered_bits(scores[i])) << 32U) | static_cast<std::uint64_t>(i);
    }
    if (num_kept < num_scores) std::nth_element(keys, keys + (num_kept - 1), keys + num_scores);
    for (std::int64_t i = 0; i < num_kept; ++i) kept[i] = static_cast<std::int64_t>(keys[i] & 0xFFFFFFFFU);
    std::sort(kept, kept + num_kept);
}

}  // namespace gsprune
