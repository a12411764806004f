#pragma once

#include <cstdint>

namespace gsprune {

/// Sorted indices of the `num_kept` highest scores; of equal scores the lower index is kept.
///
/// `keys` is scratch for num_scores entries. No score is NaN; -0.0 equals 0.0. 0 <= num_kept <= num_scores < 2^32.
void select_highest(const float* scores, std::int64_t num_scores, std::int64_t num_kept, std::uint64_t* keys,
                    std::int64_t* kept) noexcept;

/// The same for each of some groups that lie one after the other: keep[i] tells whether score i is among the
/// `num_kept[g]` highest of its group g, whose scores begin at first_unit[g].
///
/// `keys` is scratch for as many entries as the largest group has.
void select_groups(const float* scores, const std::int64_t* first_unit, std::int64_t num_groups,
                   const std::int64_t* num_kept, std::uint64_t* keys, bool* keep) noexcept;

/// The widths that a group may take; see `gsprune.selection.widths.Limits`.
struct WidthLimits {
    std::int64_t initial;
    std::int64_t width_per_unit;
    std::int64_t multiple;  // of round_to and width_per_unit
    std::int64_t min_channels;
    std::int64_t is_frozen;
};

/// How many units a group of `units` keeps, so that the fraction `sparsity` of its first-seen width is gone.
std::int64_t kept_units(const WidthLimits& limits, std::int64_t units, double sparsity) noexcept;

}  // namespace gsprune
