#include "units.hpp"

namespace gsprune {

namespace {

/// Where a unit's first sum goes, and the group it belongs to.
struct Place {
    std::int64_t offset;  // -1: its group is left out
    std::int64_t group;
};

std::vector<Place> places_of(const Units& units, const std::int64_t* members) {
    std::vector<Place> places(static_cast<std::size_t>(units.num_units()));
    std::int64_t first = 0;
    for (std::int64_t group = 0; group < units.num_groups; ++group) {
        const std::int64_t begin = units.first_unit[group];
        const std::int64_t count = units.first_unit[group + 1] - begin;
        for (std::int64_t i = 0; i < count; ++i) {
            places[static_cast<std::size_t>(begin + i)] = {members[group] == 0 ? -1 : first + i, group};
        }
        first += members[group] * count;
    }
    return places;
}

}  // namespace

void gather_units(const Units& units, const std::vector<AxisOfUnits>& axes, const std::int64_t* members, double* out) {
    const std::vector<Place> places = places_of(units, members);
    const std::int64_t nobody = units.num_units();
    for (const AxisOfUnits& axis : axes) {
        const std::int64_t* ids = units.ids + units.starts[axis.vector];
        const std::int64_t length = units.length(axis.vector);
        for (std::int64_t i = 0; i < length; ++i) {
            if (ids[i] == nobody) continue;
            const Place& place = places[static_cast<std::size_t>(ids[i])];
            if (place.offset < 0) continue;
            const std::int64_t count = units.first_unit[place.group + 1] - units.first_unit[place.group];
            out[place.offset + axis.slot[place.group] * count] += axis.sums[i];
        }
    }
}

ShrunkUnits shrink_units(const Units& units, const bool* keep) {
    ShrunkUnits after;
    const std::int64_t nobody = units.num_units();
    std::vector<std::int64_t> number(static_cast<std::size_t>(nobody + 1));  // how many units before it stay
    for (std::int64_t unit = 0; unit < nobody; ++unit) {
        number[static_cast<std::size_t>(unit + 1)] = number[static_cast<std::size_t>(unit)] + (keep[unit] ? 1 : 0);
    }
    for (std::int64_t group = 0; group <= units.num_groups; ++group) {
        after.first_unit.push_back(number[static_cast<std::size_t>(units.first_unit[group])]);
    }
    after.ids.reserve(static_cast<std::size_t>(units.num_positions()));
    after.kept.reserve(static_cast<std::size_t>(units.num_positions()));
    after.starts.push_back(0);
    for (std::int64_t vector = 0; vector < units.num_vectors; ++vector) {
        const std::int64_t* ids = units.ids + units.starts[vector];
        for (std::int64_t i = 0; i < units.length(vector); ++i) {
            if (ids[i] != nobody && !keep[ids[i]]) continue;
            after.ids.push_back(number[static_cast<std::size_t>(ids[i])]);
            after.kept.push_back(i);
        }
        after.starts.push_back(static_cast<std::int64_t>(after.ids.size()));
    }
    return after;
}

}  // namespace gsprune
