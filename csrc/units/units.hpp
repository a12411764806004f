#pragma once

#include <cstdint>
#include <vector>

namespace gsprune {

/// The groups of a network as flat arrays that it does not own; see `gsprune.tracing.structure.Structure`.
struct Units {
    const std::int64_t* first_unit;  // (num_groups + 1,) the first unit of each group
    std::int64_t num_groups;
    const std::int64_t* ids;     // the unit of each position; num_units() for a position without a unit
    const std::int64_t* starts;  // (num_vectors + 1,) the start of each vector in `ids`
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

/// Sums along one axis, and the units that they belong to.
struct AxisOfUnits {
    const double* sums;        // one per position of the vector
    std::int64_t vector;       // the vector of ids along the axis
    const std::int64_t* slot;  // (num_groups,) the member of each group that the axis is
};

/// Adds the sum at every position to its unit: out[first[g] + slot * units of g + unit within g].
///
/// `members` counts the members of each group; groups with 0 are skipped. `out` must hold zeros, one per member and
/// unit of every group. Positions are added in order, so the result is deterministic.
void gather_units(const Units& units, const std::vector<AxisOfUnits>& axes, const std::int64_t* members, double* out);

/// Reductions of the statistics x_m of M members to one number: (1 / M) sum x_m, sum x_m, max x_m (NaN wins), prod x_m,
/// or x_0, the root's. Python uses this list.
enum class Reduction { mean, sum, max, prod, first };
constexpr const char* reduction_names[] = {"mean", "sum", "max", "prod", "first"};

/// Reduces the (members, units) statistics of every group to one number per unit, member by member.
///
/// `first_unit` is as in `Units`; `members` counts the members of each group. Units of a group without members get 0.
void reduce_members(const std::int64_t* first_unit, std::int64_t num_groups, const double* statistics,
                    const std::int64_t* members, Reduction reduction, double* out) noexcept;

/// The arrays of `Units` after a removal.
struct ShrunkUnits {
    std::int64_t* first_unit;  // (num_groups + 1,)
    std::int64_t* ids;         // room for num_positions(), of which starts[num_vectors] are written
    std::int64_t* starts;      // (num_vectors + 1,)
    std::int64_t* kept;        // like `ids`: the former position within the vector
};

/// Removes the units that are false in `keep` (num_units bools). Positions without a unit stay.
void shrink_units(const Units& units, const bool* keep, ShrunkUnits& after);

/// Updates the mask of the traced units: `out` is `alive` without the units that are false in `keep`.
///
/// Returns false, and leaves `out` undefined, if the number of true entries in `alive` is not num_units.
bool remaining(const bool* alive, std::int64_t num_traced, const bool* keep, std::int64_t num_units,
               bool* out) noexcept;

}  // namespace gsprune
