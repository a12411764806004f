#include "units/units.hpp"

#include <algorithm>
#include <cmath>

namespace gsprune {

namespace {

std::vector<std::int64_t> group_of_units(const Units& units) {
    std::vector<std::int64_t> groups(static_cast<std::size_t>(units.num_units()));
    for (std::int64_t group = 0; group < units.num_groups; ++group) {
        std::fill(groups.begin() + units.first_unit[group], groups.begin() + units.first_unit[group + 1], group);
    }
    return groups;
}

}  // namespace

void gather_units(const Units& units, const std::vector<AxisOfUnits>& axes, const std::int64_t* members, double* out) {
    const std::vector<std::int64_t> group_of = group_of_units(units);
    const auto num_groups = static_cast<std::size_t>(units.num_groups);
    std::vector<std::int64_t> first_of(num_groups);  // index of each group's first statistic
    for (std::size_t group = 1; group < num_groups; ++group) {
        const auto before = static_cast<std::int64_t>(group) - 1;
        first_of[group] = first_of[group - 1] + members[before] * units.width(before);
    }
    std::vector<std::int64_t> row_of(num_groups);  // start of the axis' row in each group, minus the first unit
    for (const AxisOfUnits& axis : axes) {
        for (std::size_t i = 0; i < num_groups; ++i) {
            const auto group = static_cast<std::int64_t>(i);
            row_of[i] = first_of[i] + axis.slot[group] * units.width(group) - units.first_unit[group];
        }
        const std::int64_t* ids = units.ids + units.starts[axis.vector];
        for (std::int64_t i = 0; i < units.length(axis.vector); ++i) {
            if (ids[i] == units.num_units()) continue;
            const std::int64_t group = group_of[static_cast<std::size_t>(ids[i])];
            if (members[group] > 0) out[row_of[static_cast<std::size_t>(group)] + ids[i]] += axis.sums[i];
        }
    }
}

namespace {

/// The maximum; NaN wins, as in NumPy.
double larger(double a, double b) noexcept { return a >= b || std::isnan(a) ? a : b; }

template <class Combine>
void reduce_rows(const double* rows, std::int64_t num_rows, std::int64_t width, double* out, Combine combine) noexcept {
    std::copy_n(rows, width, out);
    for (std::int64_t row = 1; row < num_rows; ++row) {
        for (std::int64_t i = 0; i < width; ++i) out[i] = combine(out[i], rows[row * width + i]);
    }
}

void reduce_group(const double* rows, std::int64_t num_rows, std::int64_t width, Reduction reduction,
                  double* out) noexcept {
    switch (reduction) {
        case Reduction::mean:
        case Reduction::sum:
            reduce_rows(rows, num_rows, width, out, [](double a, double b) noexcept { return a + b; });
            break;
        case Reduction::max:
            reduce_rows(rows, num_rows, width, out, larger);
            break;
        case Reduction::prod:
            reduce_rows(rows, num_rows, width, out, [](double a, double b) noexcept { return a * b; });
            break;
        case Reduction::first:
            std::copy_n(rows, width, out);
            break;
    }
    if (reduction != Reduction::mean) return;
    for (std::int64_t i = 0; i < width; ++i) out[i] /= static_cast<double>(num_rows);
}

}  // namespace

void reduce_members(const std::int64_t* first_unit, std::int64_t num_groups, const double* statistics,
                    const std::int64_t* members, Reduction reduction, double* out) noexcept {
    for (std::int64_t group = 0; group < num_groups; ++group) {
        const std::int64_t width = first_unit[group + 1] - first_unit[group];
        double* reduced = out + first_unit[group];
        if (members[group] > 0) {
            reduce_group(statistics, members[group], width, reduction, reduced);
        } else {
            std::fill_n(reduced, width, 0.0);
        }
        statistics += members[group] * width;
    }
}

void shrink_units(const Units& units, const bool* keep, ShrunkUnits& after) {
    const std::int64_t num_units = units.num_units();
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(num_units + 2));  // number of kept units before a unit
    std::int64_t* number = numbers.data();
    for (std::int64_t unit = 0; unit < num_units; ++unit) number[unit + 1] = number[unit] + (keep[unit] ? 1 : 0);
    number[num_units + 1] = number[num_units] + 1;  // positions without a unit stay
    for (std::int64_t group = 0; group <= units.num_groups; ++group) {
        after.first_unit[group] = number[units.first_unit[group]];
    }
    std::int64_t* const out_ids = after.ids;
    std::int64_t* const out_kept = after.kept;
    std::int64_t next = 0;
    after.starts[0] = 0;
    for (std::int64_t vector = 0; vector < units.num_vectors; ++vector) {
        const std::int64_t* ids = units.ids + units.starts[vector];
        const std::int64_t length = units.length(vector);
        for (std::int64_t i = 0; i < length; ++i) {
            // Always write, but advance only past kept positions: no branch to mispredict.
            const std::int64_t id = number[ids[i]];
            const std::int64_t stays = number[ids[i] + 1] - id;
            out_ids[next] = id;
            out_kept[next] = i;
            next += stays;
        }
        after.starts[vector + 1] = next;
    }
}

bool remaining(const bool* alive, std::int64_t num_traced, const bool* keep, std::int64_t num_units,
               bool* out) noexcept {
    if (std::count(alive, alive + num_traced, true) != num_units) return false;
    // `keep` has no entry after the last unit that is alive, so the loop without a branch stops there.
    std::int64_t end = num_traced;
    while (end > 0 && !alive[end - 1]) out[--end] = false;
    std::int64_t unit = 0;
    for (std::int64_t i = 0; i < end; ++i) {
        const bool was = alive[i];
        out[i] = was & keep[unit];
        unit += was ? 1 : 0;
    }
    return true;
}

}  // namespace gsprune
