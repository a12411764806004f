#pragma once

#include <cstdint>

namespace gsprune {

/// The highest scores of each of some groups that lie one after the other: keep[i] tells whether score i is among the
/// `num_kept[g]` highest of its group g, whose scores begin at first_unit[g]. Of equal scores the lower index is kept.
///
/// `keys` is scratch for as many entries as the largest group has. No score is NaN; -0.0 equals 0.0. There are fewer
/// than 2^32 scores, and 0 <= num_kept[g] <= the scores of g.
void select_groups(const float* scores, const std::int64_t* first_unit, std::int64_t num_groups,
                   const std::int64_t* num_kept, std::uint64_t* keys, bool* keep) noexcept;

}  // namespace gsprune
