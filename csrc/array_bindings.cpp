// What takes NumPy arrays alone: components, selection, and what a step does with a network's units. Arrays of units
// are small: the GIL is kept around them.

#include "array_bindings.hpp"

#include <pybind11/numpy.h>

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

IndexArray select_indices(const ScoreArray& scores, std::int64_t keep) {
    check_vector(scores, "scores");
    const std::int64_t num_scores = scores.size();
    if (num_scores > 0xFFFFFFFFLL)
        throw py::value_error("`scores` must have fewer than 2**32 entries, got " + text(num_scores));
    if (keep < 0 || keep > num_scores) {
        throw py::value_error("`keep` must lie in [0, len(scores)=" + text(num_scores) + "], got " + text(keep));
    }
    const float* values = scores.data();
    for (std::int64_t i = 0; i < num_scores; ++i) {
        if (std::isnan(values[i])) throw py::value_error("`scores[" + text(i) + "]` is NaN, which has no rank");
    }
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
    for (std::int64_t i = 0; i < ids.size(); ++i) {
        if (units.ids[i] < 0 || units.ids[i] > units.num_units()) {
            throw py::value_error("`ids[" + text(i) + "]` must lie in [0, " + text(units.num_units()) +
                                  "], the number of units, got " + text(units.ids[i]));
        }
    }
    return units;
}

/// The sums of every axis; they stay where the arrays of the list have them.
std::vector<gsprune::AxisOfUnits> read_axes(const py::list& sums, const IndexArray& vectors, const IndexArray& slots,
                                            const IndexArray& members, const gsprune::Units& units) {
    const auto num_axes = static_cast<std::int64_t>(sums.size());
    check_size(vectors, num_axes, "vectors");
    if (slots.ndim() != 2 || slots.shape(0) != num_axes || slots.shape(1) != units.num_groups) {
        throw py::value_error("`slots` must have a row per axis and a column per group");
    }
    std::vector<gsprune::AxisOfUnits> axes;
    for (std::int64_t i = 0; i < num_axes; ++i) {
        const std::int64_t vector = vectors.data()[i];
        if (vector < 0 || vector >= units.num_vectors) {
            throw py::value_error("`vectors[" + text(i) + "]` must lie in [0, " + text(units.num_vectors) + "), got " +
                                  text(vector));
        }
        const py::handle entry = sums[static_cast<std::size_t>(i)];
        if (!py::isinstance<SumArray>(entry)) {
            throw py::value_error("`sums[" + text(i) + "]` must be a contiguous float64 array");
        }
        const auto values = py::reinterpret_borrow<SumArray>(entry);
        check_size(values, units.length(vector), ("sums[" + text(i) + "]").c_str());
        const std::int64_t* slot = slots.data() + i * units.num_groups;
        for (std::int64_t group = 0; group < units.num_groups; ++group) {
            if (members.data()[group] > 0 && (slot[group] < 0 || slot[group] >= members.data()[group])) {
                throw py::value_error("`slots` must lie in [0, members) of their group, got " + text(slot[group]));
            }
        }
        axes.push_back({values.data(), vector, slot});
    }
    return axes;
}

SumArray gather_units(const py::list& sums, const IndexArray& vectors, const IndexArray& slots,
                      const IndexArray& members, const IndexArray& first_unit, const IndexArray& ids,
                      const IndexArray& starts) {
    const gsprune::Units units = read_units(first_unit, ids, starts);
    check_size(members, units.num_groups, "members");
    std::int64_t num_sums = 0;
    for (std::int64_t group = 0; group < units.num_groups; ++group) {
        if (members.data()[group] < 0) throw py::value_error("`members` must be >= 0");
        num_sums += members.data()[group] * (units.first_unit[group + 1] - units.first_unit[group]);
    }
    const std::vector<gsprune::AxisOfUnits> axes = read_axes(sums, vectors, slots, members, units);
    SumArray gathered(num_sums);
    std::memset(gathered.mutable_data(), 0, static_cast<std::size_t>(num_sums) * sizeof(double));
    gsprune::gather_units(units, axes, members.data(), gathered.mutable_data());
    return gathered;
}

IndexArray as_array(const std::vector<std::int64_t>& values) {
    return IndexArray(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple shrink_units(const BoolArray& keep, const IndexArray& first_unit, const IndexArray& ids,
                       const IndexArray& starts) {
    const gsprune::Units units = read_units(first_unit, ids, starts);
    check_size(keep, units.num_units(), "keep");
    const gsprune::ShrunkUnits after = gsprune::shrink_units(units, keep.data());
    py::list keeps;
    for (std::int64_t vector = 0; vector < units.num_vectors; ++vector) {
        const std::int64_t first = after.starts[static_cast<std::size_t>(vector)];
        const std::int64_t length = after.starts[static_cast<std::size_t>(vector) + 1] - first;
        if (length == units.length(vector)) {
            keeps.append(py::none());
        } else {
            keeps.append(IndexArray(length, after.kept.data() + first));
        }
    }
    return py::make_tuple(as_array(after.first_unit), as_array(after.ids), as_array(after.starts), keeps);
}

}  // namespace

namespace gsprune {

void bind_arrays(py::module_& module) {
    module.def("connected_components", &find_components, py::arg("num_nodes"), py::arg("a").noconvert(),
               py::arg("b").noconvert(), "Smallest node of every node's component.");
    module.def("select", &select_indices, py::arg("scores").noconvert(), py::arg("keep"),
               "Sorted indices of the `keep` highest scores; of equal scores the lower index is kept.");
    module.def("gather_units", &::gather_units, py::arg("sums"), py::arg("vectors").noconvert(),
               py::arg("slots").noconvert(), py::arg("members").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("ids").noconvert(), py::arg("starts").noconvert(),
               "Sums along axes as (members, units) of one group after the other.");
    module.def("shrink_units", &::shrink_units, py::arg("keep").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("ids").noconvert(), py::arg("starts").noconvert(),
               "first_unit, ids and starts without some units; per vector the kept positions, None where all are.");
}

}  // namespace gsprune
