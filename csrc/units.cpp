#include "units.hpp"

#include <algorithm>
#include <cmath>

namespace gsprune {

namespace {

/// Positions of a vector, one after the other, that belong to one unit after the other, or all to one.
struct Run {
    std::int64_t position;
    std::int64_t length;
    std::int64_t unit;  // of the first position
    std::int64_t step;  // 1: the next position is the next unit's; 0: all are this unit's
    std::int64_t group;
};

std::vector<std::int64_t> group_of_units(const Units& units) {
    std::vector<std::int64_t> groups(static_cast<std::size_t>(units.num_units()));
    for (std::int64_t group = 0; group < units.num_groups; ++group) {
        std::fill(groups.begin() + units.first_unit[group], groups.begin() + units.first_unit[group + 1], group);
    }
    return groups;
}

/// The runs of every vector; positions that are nobody's are in none. Runs end where groups do.
struct AllRuns {
    std::vector<Run> runs;
    std::vector<std::size_t> starts{0};  // per vector

    explicit AllRuns(const Units& units) {
        const std::vector<std::int64_t> groups = group_of_units(units);
        for (std::int64_t vector = 0; vector < units.num_vectors; ++vector) {
            add(units, groups, units.ids + units.starts[vector], units.length(vector));
            starts.push_back(runs.size());
        }
    }

private:
    void add(const Units& units, const std::vector<std::int64_t>& groups, const std::int64_t* ids, std::int64_t size) {
        for (std::int64_t i = 0; i < size;) {
            const std::int64_t unit = ids[i];
            if (unit == units.num_units()) {
                ++i;
                continue;
            }
            const std::int64_t group = groups[static_cast<std::size_t>(unit)];
            const std::int64_t step = i + 1 < size && ids[i + 1] == unit ? 0 : 1;
            const std::int64_t end = step == 0 ? size : std::min(size, i + units.first_unit[group + 1] - unit);
            std::int64_t next = i + 1;
            while (next < end && ids[next] == unit + step * (next - i)) ++next;
            runs.push_back({i, next - i, unit, step, group});
            i = next;
        }
    }
};

void add_run(const double* sums, std::int64_t length, std::int64_t step, double* out) noexcept {
    if (step == 1) {
        for (std::int64_t i = 0; i < length; ++i) out[i] += sums[i];
        return;
    }
    double total = *out;
    for (std::int64_t i = 0; i < length; ++i) total += sums[i];
    *out = total;
}

}  // namespace

void gather_units(const Units& units, const std::vector<AxisOfUnits>& axes, const std::int64_t* members, double* out) {
    const AllRuns all(units);
    std::vector<double*> blocks;  // of each group
    for (std::int64_t group = 0; group < units.num_groups; ++group) {
        blocks.push_back(out);
        out += members[group] * units.width(group);
    }
    for (const AxisOfUnits& axis : axes) {
        const auto vector = static_cast<std::size_t>(axis.vector);
        for (std::size_t i = all.starts[vector]; i < all.starts[vector + 1]; ++i) {
            const Run& run = all.runs[i];
            if (members[run.group] == 0) continue;
            double* row = blocks[static_cast<std::size_t>(run.group)] + axis.slot[run.group] * units.width(run.group);
            add_run(axis.sums + run.position, run.length, run.step, row + (run.unit - units.first_unit[run.group]));
        }
    }
}

namespace {

/// As NumPy: NaN wins.
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
                    const std::int64_t* members, Reduction reduction, float* out) {
    std::vector<double> reduced;
    for (std::int64_t group = 0; group < num_groups; ++group) {
        const std::int64_t width = first_unit[group + 1] - first_unit[group];
        float* scores = out + first_unit[group];
        reduced.assign(static_cast<std::size_t>(width), 0.0);
        if (members[group] > 0) reduce_group(statistics, members[group], width, reduction, reduced.data());
        for (std::int64_t i = 0; i < width; ++i) scores[i] = static_cast<float>(reduced[static_cast<std::size_t>(i)]);
        statistics += members[group] * width;
    }
}

void shrink_units(const Units& units, const bool* keep, ShrunkUnits& after) {
    const std::int64_t nobody = units.num_units();
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(nobody + 2));  // how many units before it stay
    std::int64_t* number = numbers.data();
    for (std::int64_t unit = 0; unit < nobody; ++unit) number[unit + 1] = number[unit] + (keep[unit] ? 1 : 0);
    number[nobody + 1] = number[nobody] + 1;  // nobody's positions stay
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
            // Written in any case, counted where it stays: no branch to mispredict.
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
    // Past the last one alive `keep` must not be read; before it no branch is needed.
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
