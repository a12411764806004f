// Groups as flat arrays of units. The arrays are small, so the GIL is kept.

#include "units/units.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "python/arguments.hpp"
#include "python/arrays.hpp"
#include "python/bindings.hpp"
#include "units/components.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

void check_nodes(const IndexArray& nodes, std::int64_t num_nodes, const char* name) {
    const std::int64_t* values = nodes.data();
    for (std::int64_t i = 0; i < nodes.size(); ++i) {
        if (values[i] < 0 || values[i] >= num_nodes) {
            throw py::value_error(std::string("`") + name + "[" + text(i) +
                                  "]` must lie in [0, num_nodes=" + text(num_nodes) + "), got " + text(values[i]));
        }
    }
}

IndexArray label_components(std::int64_t num_nodes, const IndexArray& a, const IndexArray& b) {
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
        connected_components(num_nodes, first, second, num_edges, out);
    }
    return labels;
}

Units read_units(const IndexArray& first_unit, const IndexArray& ids, const IndexArray& starts) {
    check_bounds(first_unit, "first_unit");
    check_bounds(starts, "starts");
    const Units units{first_unit.data(), first_unit.size() - 1, ids.data(), starts.data(), starts.size() - 1};
    check_size(ids, units.num_positions(), "ids");
    std::uint64_t largest = 0;  // a negative id counts as a very large one
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

/// The axes, whose sums follow each other in `sums` and are not copied.
std::vector<AxisOfUnits> read_axes(const SumArray& sums, const IndexArray& vectors, const IndexArray& slots,
                                   const IndexArray& members, const Units& units) {
    check_vector(vectors, "vectors");
    const std::int64_t num_axes = vectors.size();
    if (slots.ndim() != 2 || slots.shape(0) != num_axes || slots.shape(1) != units.num_groups) {
        throw py::value_error("`slots` must have a row per axis and a column per group");
    }
    std::vector<AxisOfUnits> axes;
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

/// The number of statistics. Throws ValueError if a count is negative.
std::int64_t count_statistics(const IndexArray& members, const IndexArray& first_unit) {
    check_size(members, first_unit.size() - 1, "members");
    std::int64_t count = 0;
    for (std::int64_t group = 0; group < members.size(); ++group) {
        if (members.data()[group] < 0) throw py::value_error("`members` must be >= 0");
        count += members.data()[group] * (first_unit.data()[group + 1] - first_unit.data()[group]);
    }
    return count;
}

SumArray gather(const SumArray& sums, const IndexArray& vectors, const IndexArray& slots, const IndexArray& members,
                const IndexArray& first_unit, const IndexArray& ids, const IndexArray& starts) {
    const Units units = read_units(first_unit, ids, starts);
    const std::int64_t num_sums = count_statistics(members, first_unit);
    const std::vector<AxisOfUnits> axes = read_axes(sums, vectors, slots, members, units);
    SumArray gathered(num_sums);
    std::memset(gathered.mutable_data(), 0, static_cast<std::size_t>(num_sums) * sizeof(double));
    gather_units(units, axes, members.data(), gathered.mutable_data());
    return gathered;
}

SumArray reduce(const SumArray& statistics, const IndexArray& members, const IndexArray& first_unit,
                const std::string& reduction) {
    check_bounds(first_unit, "first_unit");
    check_size(statistics, count_statistics(members, first_unit), "statistics");
    const auto chosen = parse_name<Reduction>(reduction, reduction_names, "reduction");
    SumArray reduced(first_unit.data()[members.size()]);
    reduce_members(first_unit.data(), members.size(), statistics.data(), members.data(), chosen,
                   reduced.mutable_data());
    return reduced;
}

/// A slice of `base`, which it keeps alive.
IndexArray part(const IndexArray& base, std::int64_t first, std::int64_t size) {
    return IndexArray({size}, {static_cast<py::ssize_t>(sizeof(std::int64_t))}, base.data() + first, base);
}

py::tuple shrink(const BoolArray& keep, const BoolArray& alive, const IndexArray& first_unit, const IndexArray& ids,
                 const IndexArray& starts) {
    const Units units = read_units(first_unit, ids, starts);
    check_size(keep, units.num_units(), "keep");
    check_vector(alive, "alive");
    BoolArray alive_after(alive.size());
    if (!remaining(alive.data(), alive.size(), keep.data(), keep.size(), alive_after.mutable_data())) {
        throw py::value_error("`alive` must hold as many units as `keep`, " + text(keep.size()));
    }
    IndexArray first_unit_after(first_unit.size());
    IndexArray starts_after(starts.size());
    const IndexArray ids_after(ids.size());
    const IndexArray kept(ids.size());
    ShrunkUnits after{first_unit_after.mutable_data(), const_cast<std::int64_t*>(ids_after.data()),
                      starts_after.mutable_data(), const_cast<std::int64_t*>(kept.data())};
    shrink_units(units, keep.data(), after);
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

}  // namespace

void bind_units(py::module_& module) {
    module.attr("REDUCTIONS") = as_tuple(reduction_names);
    module.def("connected_components", &label_components, py::arg("num_nodes"), py::arg("a").noconvert(),
               py::arg("b").noconvert(), "The smallest node of every node's component.");
    module.def("gather_units", &gather, py::arg("sums"), py::arg("vectors").noconvert(), py::arg("slots").noconvert(),
               py::arg("members").noconvert(), py::arg("first_unit").noconvert(), py::arg("ids").noconvert(),
               py::arg("starts").noconvert(),
               "Sums along axes as (members, units) statistics of every group, in one array.");
    module.def("reduce_members", &reduce, py::arg("statistics").noconvert(), py::arg("members").noconvert(),
               py::arg("first_unit").noconvert(), py::arg("reduction"),
               "Reduce the (members, units) statistics of every group to one number per unit; 0 without members.");
    module.def(
        "shrink_units", &shrink, py::arg("keep").noconvert(), py::arg("alive").noconvert(),
        py::arg("first_unit").noconvert(), py::arg("ids").noconvert(), py::arg("starts").noconvert(),
        "alive, first_unit, ids and starts after a removal, and the kept positions of every vector (None: all).");
}

}  // namespace gsprune
