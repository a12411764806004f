#pragma once

#include <cstdint>

namespace gsprune {

/// Sets keep[i] to true for the `num_kept[g]` highest scores of each group g; of equal scores the lower index is kept.
///
/// Group g has the scores first_unit[g] to first_unit[g + 1]. `keys` is scratch space with as many entries as the
/// largest group. Preconditions: no NaN, fewer than 2^32 scores, 0 <= num_kept[g] <= size of g. -0.0 equals 0.0.
void select_groups(const float* scores, const std::int64_t* first_unit, std::int64_t num_groups,
                   const std::int64_t* num_kept, std::uint64_t* keys, bool* keep) noexcept;

}  // namespace gsprune
