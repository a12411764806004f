#pragma once

#include <cstdint>
#include <vector>

namespace gsprune {

/// The groups of a network as flat arrays; see `gsprune.tracing.structure.Structure`. Nothing is owned.
struct Units {
    const std::int64_t* first_unit;  // (num_groups + 1,) where the units of each group begin
    std::int64_t num_groups;
    const std::int64_t* ids;     // per position the unit it belongs to; the number of units stands for nobody
    const std::int64_t* starts;  // (num_vectors + 1,) where each vector of `ids` begins
    std::int64_t num_vectors;

    [[nodiscard]] std::int64_t num_units() const noexcept { return first_unit[num_groups]; }
    [[nodiscard]] std::int64_t num_positions() const noexcept { return starts[num_vectors]; }
    [[nodiscard]] std::int64_t width(std::int64_t group) const noexcept {
        return first_unit[group + 1] - first_unit[group];
    }
    [[nodiscard]] std::int64_t length(std::int64_t vector) const noexcept {
        return starts[vector + 1] - starts[vector];
    }
};

/// Sums along one axis, and where they belong.
struct AxisOfUnits {
    const double* sums;        // one per position of the vector
    std::int64_t vector;       // which vector the axis is tied by
    const std::int64_t* slot;  // (num_groups,) which member of each group the axis is
};

/// Adds every position's sum to its unit: out[first[g] + slot * units of g + unit within g].
///
/// `members` counts the members of each group, 0 where it is left out; `out` has room for the sum over groups of
/// members times units and begins as zeros. Positions are added in order, so that the result depends on nothing else.
void gather_units(const Units& units, const std::vector<AxisOfUnits>& axes, const std::int64_t* members, double* out);

/// From one statistic per member x_m to one per unit: (1 / M) sum x_m, sum x_m, max x_m (NaN wins), prod x_m, or x_0,
/// the root's. Python reads this list.
enum class Reduction { mean, sum, max, prod, first };
constexpr const char* reduction_names[] = {"mean", "sum", "max", "prod", "first"};

/// Reduces (members, units) of one group after the other, member by member, to one statistic per unit.
///
/// `first_unit` is that of `Units`; `members` counts the members of each group. The units of a group without any get 0.
void reduce_members(const std::int64_t* first_unit, std::int64_t num_groups, const double* statistics,
                    const std::int64_t* members, Reduction reduction, double* out) noexcept;

/// Where the arrays of `Units` go after some units have gone.
struct ShrunkUnits {
    std::int64_t* first_unit;  // (num_groups + 1,)
    std::int64_t* ids;         // room for num_positions(), of which starts[num_vectors] are written
    std::int64_t* starts;      // (num_vectors + 1,)
    std::int64_t* kept;        // as `ids`: where each position was within its vector
};

/// Removes the units that are not in `keep` (num_units bools); positions that are nobody's stay.
void shrink_units(const Units& units, const bool* keep, ShrunkUnits& after);

/// Which of the traced units are left: `alive` without those of its num_units true ones that are not in `keep`.
///
/// Returns false where `alive` has another number of true ones; `out` is then of no use.
bool remaining(const bool* alive, std::int64_t num_traced, const bool* keep, std::int64_t num_units,
               bool* out) noexcept;

}  // namespace gsprune
