#pragma once

#include <cmath>
#include <cstdint>

namespace gsprune {

/// The highest scores of each of some groups that lie one after the other: keep[i] tells whether score i is among the
/// `num_kept[g]` highest of its group g, whose scores begin at first_unit[g]. Of equal scores the lower index is kept.
///
/// `keys` is scratch for as many entries as the largest group has. No score is NaN; -0.0 equals 0.0. There are fewer
/// than 2^32 scores, and 0 <= num_kept[g] <= the scores of g.
void select_groups(const float* scores, const std::int64_t* first_unit, std::int64_t num_groups,
                   const std::int64_t* num_kept, std::uint64_t* keys, bool* keep) noexcept;

/// The width that is left of `initial` at that sparsity, before it is rounded up to an allowed one.
inline std::int64_t kept_width(std::int64_t initial, double sparsity) noexcept {
    // A product such as 0.1 * 30 may come out just below the whole number that was meant.
    return initial - static_cast<std::int64_t>(std::floor(static_cast<double>(initial) * sparsity + 1e-9));
}

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
