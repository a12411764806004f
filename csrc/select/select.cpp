#include "select/select.hpp"

#include <algorithm>
#include <cstring>

namespace gsprune {

namespace {

/// Maps floats to unsigned integers in the same order.
std::uint32_t ordered_bits(float value) noexcept {
    const float positive_zero = value + 0.0F;  // -0.0 + 0.0 is +0.0
    std::uint32_t bits = 0;
    std::memcpy(&bits, &positive_zero, sizeof bits);
    return (bits & 0x80000000U) != 0U ? ~bits : bits | 0x80000000U;
}

/// The complement of the score, then the index: smaller keys rank higher, and ties go to the lower index.
std::uint64_t key_of(const float* scores, std::int64_t index) noexcept {
    return (static_cast<std::uint64_t>(~ordered_bits(scores[index])) << 32U) | static_cast<std::uint64_t>(index);
}

}  // namespace

void select_groups(const float* scores, const std::int64_t* first_unit, std::int64_t num_groups,
                   const std::int64_t* num_kept, std::uint64_t* keys, bool* keep) noexcept {
    for (std::int64_t group = 0; group < num_groups; ++group) {
        const std::int64_t first = first_unit[group];
        const std::int64_t count = first_unit[group + 1] - first;
        if (num_kept[group] == count || num_kept[group] == 0) {
            std::fill_n(keep + first, count, num_kept[group] > 0);
            continue;
        }
        for (std::int64_t i = 0; i < count; ++i) keys[i] = key_of(scores + first, i);
        std::nth_element(keys, keys + (num_kept[group] - 1), keys + count);
        const std::uint64_t worst = keys[num_kept[group] - 1];
        for (std::int64_t i = 0; i < count; ++i) keep[first + i] = key_of(scores + first, i) <= worst;
    }
}

}  // namespace gsprune
