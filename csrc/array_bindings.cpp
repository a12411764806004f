// What takes NumPy arrays alone: components, selection, and what a step does with a network's units. Arrays of units
// are small: the GIL is kept around them.

#include "array_bindings.hpp"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "components.hpp"
#include "select.hpp"
#include "units.hpp"

namespace py = pybind11;

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using ScoreArray = py::array_t<float, py::array::c_style>;
using BoolArray = py::array_t<bool, py::array::c_style>;
using SumArray = py::array_t<double, py::array::c_style>;

std::string text(std::int64_t value) { return std::to_string(value); }

void check_vector(const py::array& array, const char* name) {
    if (array.ndim() != 1) {
        throw py::value_error(std::string("`") + name + "` must have one dimension, got " + text(array.ndim()));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(array.itemsize()) != 0) {
        throw py::value_error(std::string("`") + name + "` must be aligned to its elements; copy the array");
    }
}

void check_nodes(const IndexArray& nodes, std::int64_t num_nodes, const char* name) {
    const std::int64_t* values = nodes.data();
    for (std::int64_t i = 0; i < nodes.size(); ++i) {
        if (values[i] < 0 || values[i] >= num_nodes) {
            throw py::value_error(std::string("`") + name + "[" + text(i) +
                                  "]` must lie in [0, num_nodes=" + text(num_nodes) + "), got " + text(values[i]));
        }
    }
}

IndexArray find_components(std::int64_t num_nodes, const IndexArray& a, const IndexArray& b) {
    if (num_nodes < 0) throw py::value_error("`num_nodes` must be >= 0, got " + text(num_nodes));
    check_vector(a, "a");
    check_vector(b, "b");
    if (a.size() != b.size()) {
        throw py::value_error("`a` and `b` must have the same length, got " + text(a.size()) + " and " +
                              text(b.size()));
    }
    check_nodes(a, num_nodes, "a");
    check_nodes(b, num_nodes, "b");
    IndexArray labels(num_nodes);
    const std::int64_t* first = a.data();
    const std::int64_t* second = b.data();
    std::int64_t* out = labels.mutable_data();
    const std::int64_t num_edges = a.size();
    {
        const py::gil_scoped_release unlocked;
        gsprune::connected_components(num_nodes, first, second, num_edges, out);
    }
    return labels;
}

/// Whether no score is NaN or infinite; 0 * x is 0 but for these, and eight sums wait for nothing.
bool all_finite(const float* scores, std::int64_t size) noexcept {
    float sums[8] = {};
    std::int64_t i = 0;
    for (; i + 8 <= size; i += 8) {
        for (std::int64_t j = 0; j < 8; ++j) sums[j] += 0.0F * scores[i + j];
    }
    for (; i < size; ++i) sums[0] += 0.0F * scores[i];
    return std::all_of(sums, sums + 8, [](float sum) { return sum == 0.0F; });
}

void check_scores(const ScoreArray& scores) {
    if (scores.size() > 0xFFFFFFFFLL) {
        throw py::value_error("`scores` must have fewer than 2**32 entries, got " + text(scores.size()));
    }
    const float* values = scores.data();
    if (all_finite(values, scores.size())) return;
    for (std::int64_t i = 0; i < scores.size(); ++i) {
        if (std::isnan(values[i])) throw py::value_error("`scores[" + text(i) + "]` is NaN, which has no rank");
    }
}

IndexArray select_indices(const ScoreArray& scores, std::int64_t keep) {
    check_vector(scores, "scores");
    const std::int64_t num_scores = scores.size();
    if (keep < 0 || keep > num_scores) {
        throw py::value_error("`keep` must lie in [0, len(scores)=" + text(num_scores) + "], got " + text(keep));
    }
    check_scores(scores);
    const float* values = scores.data();
    IndexArray kept(keep);
    std::int64_t* out = kept.mutable_data();
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(num_scores));
    {
        const py::gil_scoped_release unlocked;
        gsprune::select_highest(values, num_scores, keep, keys.data(), out);
    }
    return kept;
}

void check_size(const py::array& array, std::int64_t size, const char* name) {
    check_vector(array, name);
    if (array.size() != size) {
        throw py::value_error(std::string("`") + name + "` must have " + text(size) + " entries, got " +
                              text(array.size()));
    }
}

/// Bounds begin at 0 and never fall.
void check_bounds(const IndexArray& bounds, const char* name) {
    check_vector(bounds, name);
    const std::int64_t* values = bounds.data();
    bool is_good = bounds.size() > 0 && values[0] == 0;
    for (std::int64_t i = 1; is_good && i < bounds.size(); ++i) is_good = values[i] >= values[i - 1];
    if (!is_good) throw py::value_error(std::string("`") + name + "` must begin at 0 and not fall");
}

gsprune::Units read_units(const IndexArray& first_unit, const IndexArray& ids, const IndexArray& starts) {
    check_bounds(first_unit, "first_unit");
    check_bounds(starts, "starts");
    const gsprune::Units units{first_unit.data(), first_unit.size() - 1, ids.data(), starts.data(), starts.size() - 1};
    check_size(ids, units.num_positions(), "ids");
    std::uint64_t largest = 0;  // a negative one counts as very large
    for (std::int64_t i = 0; i < units.num_positions(); ++i) {
        largest = std::max(largest, static_cast<std::uint64_t>(units.ids[i]));
    }
    if (largest <= static_cast<std::uint64_t>(units.num_units())) return units;
    for (std::int64_t i = 0; i < ids.size(); ++i) {
        if (units.ids[i] < 0 || units.ids[i] > units.num_units()) {
            throw py::value_error("`ids[" + text(i) + "]` must lie in [0, " + text(units.num_units()) +
                                  "], the number of units, got " + text(units.ids[i]));
        }
    }
    return units;
}

/// The sums of every axis, which stay where they are: one vector after the other.
std::vector<gsprune::AxisOfUnits> read_axes(const SumArray& sums, const IndexArray& vectors, const IndexArray& slots,
                                            const IndexArray& members, const gsprune::Units& units) {
    check_vector(vectors, "vectors");
    const std::int64_t num_axes = vectors.size();
    if (slots.ndim() != 2 || slots.shape(0) != num_axes || slots.shape(1) != units.num_groups) {
        throw py::value_error("`slots` must have a row per axis and a column per group");
    }
    std::vector<gsprune::AxisOfUnits> axes;
    axes.reserve(static_cast<std::size_t>(num_axes));
    std::int64_t first = 0;
    for (std::int64_t i = 0; i < num_axes; ++i) {
        const std::int64_t vector = vectors.data()[i];
        if (vector < 0 || vector >= units.num_vectors) {
            throw py::value_error("`vectors[" + text(i) + "]` must lie in [0, " + text(units.num_vectors) + "), got " +
                                  text(vector));
        }
        const std::int64_t* slot = slots.data() + i * units.num_groups;
        for (std::int64_t group = 0; group < units.num_groups; ++group) {
            if (members.data()[group] > 0 && (slot[group] < 0 || slot[group] >= members.data()[group])) {
                throw py::value_error("`slots` must lie in [0, members) of their group, got " + text(slot[group]));
            }
        }
        axes.push_back({sums.data() + first, vector, slot});
        first += units.length(vector);
    }
    check_size(sums, first, "sums");
    return axes;
}

/// Throws ValueError where a count is negative; returns how many statistics there are.
std::int64_t count_statistics(const IndexArray& members, const IndexArray& first_unit) {
    check_size(members, first_unit.size() - 1, "members");
    std::int64_t count = 0;
    for (std::int64_t group = 0; group < members.size(); ++group) {
        if (members.data()[group] < 0) throw py::value_error("`members` must be >= 0");
        count += members.data()[group] * (first_unit.data()[group + 1] - first_unit.data()[group]);
    }
    return count;
}

SumArray gather_units(const SumArray& sums, const IndexArray& vectors, const IndexArray& slots,
                      const IndexArray& members, const IndexArray& first_unit, const IndexArray& ids,
                      const IndexArray& starts) {
    const gsprune::Units units = read_units(first_unit, ids, starts);
    const std::int64_t num_sums = count_statistics(members, first_unit);
    const std::vector<gsprune::AxisOfUnits> axes = read_axes(sums, vectors, slots, members, units);
    SumArray gathered(num_sums);
    std::memset(gathered.mutable_data(), 0, static_cast<std::size_t>(num_sums) * sizeof(double));
    gsprune::gather_units(units, axes, members.data(), gathered.mutable_data());
    return gathered;
}

gsprune::Reduction parse_reduction(const std::string& name) {
    constexpr const char* names[] = {"mean", "sum", "max", "prod", "first"};
    for (int i = 0; i < 5; ++i) {
        if (name == names[i]) return static_cast<gsprune::Reduction>(i);
    }
    throw py::value_error("`reduction` must be 'mean', 'sum', 'max', 'prod' or 'first', got '" + name + "'");
}

ScoreArray reduce_members(const SumArray& statistics, const IndexArray& members, const IndexArray& first_unit,
                          const std::string& reduction) {
    check_bounds(first_unit, "first_unit");
    check_size(statistics, count_statistics(members, first_unit), "statistics");
    const gsprune::Reduction known = parse_reduction(reduction);
    ScoreArray scores(first_unit.data()[members.size()]);
    gsprune::reduce_members(first_unit.data(), members.size(), statistics.data(), members.data(), known,
                            scores.mutable_data());
    return scores;
}

/// Entries of `base`, which lives as long as they do.
IndexArray part(const IndexArray& base, std::int64_t first, std::int64_t size) {
    return IndexArray({size}, {static_cast<py::ssize_t>(sizeof(std::int64_t))}, base.data() + first, base);
}

py::tuple shrink_units(const BoolArray& keep, const BoolArray& alive, const IndexArray& first_unit,
                       const IndexArray& ids, const IndexArray& starts) {
    const gsprune::Units units = read_units(first_unit, ids, starts);
    check_size(keep, units.num_units(), "keep");
    check_vector(alive, "alive");
    BoolArray alive_after(alive.size());
    if (!gsprune::remaining(alive.data(), alive.size(), keep.data(), keep.size(), alive_after.mutable_data())) {
        throw py::value_error("`alive` must hold as many units as `keep`, " + text(keep.size()));
    }
    IndexArray first_unit_after(first_unit.size());
    IndexArray starts_after(starts.size());
    const IndexArray ids_after(ids.size());
    const IndexArray kept(ids.size());
    gsprune::ShrunkUnits after{first_unit_after.mutable_data(), const_cast<std::int64_t*>(ids_after.data()),
                               starts_after.mutable_data(), const_cast<std::int64_t*>(kept.data())};
    gsprune::shrink_units(units, keep.data(), after);
    py::list keeps(static_cast<std::size_t>(units.num_vectors));
    for (std::int64_t vector = 0; vector < units.num_vectors; ++vector) {
        const std::int64_t first = after.starts[vector];
        const std::int64_t length = after.starts[vector + 1] - first;
        if (length == units.length(vector)) {
            keeps[static_cast<std::size_t>(vector)] = py::none();
        } else {
            keeps[static_cast<std::size_t>(vector)] = part(kept, first, length);
        }
    }
    return py::make_tuple(alive_after, first_unit_after, part(ids_after, 0, after.starts[units.num_vectors]),
                          starts_after, keeps);
}

/// The first score that is NaN or infinite, -1 where there is none.
std::int64_t first_not_finite(const ScoreArray& scores) {
    check_vector(scores, "scores");
    const float* values = scores.data();
    if (all_finite(values, scores.size())) return -1;
    for (std::int64_t i = 0; i < scores.size(); ++i) {
        if (!std::isfinite(values[i])) return i;
    }
    return -1;
}

IndexArray kept_units(const IndexArray& limits, const IndexArray& first_unit, const py::object& sparsities) {
    check_bounds(first_unit, "first_unit");
    const std::int64_t num_groups = first_unit.size() - 1;
    if (limits.ndim() != 2 || limits.shape(0) != num_groups || limits.shape(1) != 5) {
        throw py::value_error("`limits` must have a row per group and five columns");
    }
    const bool is_one = PyFloat_Check(sparsities.ptr()) != 0;
    const double for_all = is_one ? PyFloat_AS_DOUBLE(sparsities.ptr()) : 0.0;
    if (!is_one && !py::isinstance<SumArray>(sparsities)) {
        throw py::type_error("`sparsities` must be a float or a contiguous float64 array");
    }
    const auto of_groups = is_one ? SumArray() : py::reinterpret_borrow<SumArray>(sparsities);
    if (!is_one) check_size(of_groups, num_groups, "sparsities");
    IndexArray kept(num_groups);
    for (std::int64_t group = 0; group < num_groups; ++group) {
        const std::int64_t* row = limits.data() + 5 * group;
        const gsprune::WidthLimits known{row[0], row[1], row[2], row[3], row[4]};
        const double sparsity = is_one ? for_all : of_groups.data()[group];
        // Small enough for sums of two, and for the float64 that holds a width.
        const auto is_width = [](std::int64_t width) { return width >= 1 && width <= std::int64_t{1} << 40; };
        if (!is_width(known.width_per_unit) || !is_width(known.multiple) || !is_width(known.min_channels) ||
            known.initial < 0 || known.initial > std::int64_t{1} << 40 || known.multiple % known.width_per_unit != 0) {
            throw py::value_error("`limits[" + text(group) +
                                  "]` must hold (initial, width per unit, multiple of it, "
                                  "minimum, frozen) up to 2**40");
        }
        if (!(sparsity >= 0.0 && sparsity < 1.0)) {
            throw py::value_error("`sparsities[" + text(group) + "]` must lie in [0, 1), got " +
                                  std::to_string(sparsity));
        }
        kept.mutable_data()[group] =
            gsprune::kept_units(known, first_unit.data()[group + 1] - first_unit.data()[group], sparsity);
    }
    return kept;
}

BoolArray select_groups(const ScoreArray& scores, const IndexArray& first_unit, const IndexArray& kept) {
    check_bounds(first_unit, "first_unit");
    const std::int64_t num_groups = first_unit.size() - 1;
    check_size(scores, first_unit.data()[num_groups], "scores");
    check_size(kept, num_groups, "kept");
    std::int64_t widest = 0;
    for (std::int64_t group = 0; group < num_groups; ++group) {
        const std::int64_t width = first_unit.data()[group + 1] - first_unit.data()[group];
        widest = std::max(widest, width);
        if (kept.data()[group] < 0 || kept.data()[group] > width) {
            throw py::value_error("`kept[" + text(group) + "]` must lie in [0, " + text(width) +
                                  "], the units of the group, got " + text(kept.data()[group]));
        }
    }
    check_scores(scores);
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(widest));
    BoolArray keep(scores.size());
    gsprune::select_groups(scores.data(), first_unit.data(), num_groups, kept.data(), keys.data(), keep.mutable_data());
    return keep;
}

}  // namespace

namespace gsprune {

void bind_arrays(py::module_& module) {
    module.def("connected_components", &find_components, py::arg("num_nodes"), py::arg("a").noconvert(),
               py::arg("b").noconvert(), "Smallest node of every node's component.");
    module.def("select", &select_indices, py::arg("scores").noconvert(), py::arg("keep"),
               "Sorted indices of the `keep` highest scores; of equal scores the lower index is kept.");
    module.def("select_groups", &::select_groups, py::arg("scores").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("kept").noconvert(),
               "Per unit whether it is among the `kept` highest of its group; of equal scores the lower index is.");
    module.def("kept_units", &::kept_units, py::arg("limits").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("sparsities"), "Units that every group keeps at its sparsity, or at one that all have.");
    module.def("first_not_finite", &first_not_finite, py::arg("scores").noconvert(),
               "Index of the first score that is NaN or infinite, -1 where there is none.");
    module.def("reduce_members", &::reduce_members, py::arg("statistics").noconvert(), py::arg("members").noconvert(),
               py::arg("first_unit").noconvert(), py::arg("reduction"),
               "(members, units) of one group after the other as one float32 per unit; 0 where there are no members.");
    module.def("gather_units", &::gather_units, py::arg("sums"), py::arg("vectors").noconvert(),
               py::arg("slots").noconvert(), py::arg("members").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("ids").noconvert(), py::arg("starts").noconvert(),
               "Sums along axes, one vector after the other, as (members, units) of one group after the other.");
    module.def(
        "shrink_units", &::shrink_units, py::arg("keep").noconvert(), py::arg("alive").noconvert(),
        py::arg("first_unit").noconvert(), py::arg("ids").noconvert(), py::arg("starts").noconvert(),
        "alive, first_unit, ids and starts without some units; per vector the kept positions, None where all are.");
}

}  // namespace gsprune
