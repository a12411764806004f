#include "select/select.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "python/arguments.hpp"
#include "python/arrays.hpp"
#include "python/bindings.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

/// The first score that is NaN or infinite, -1 where there is none.
std::int64_t first_not_finite(const ScoreArray& scores) {
    check_vector(scores, "scores");
    const float* values = scores.data();
    for (std::int64_t i = 0; i < scores.size(); ++i) {
        if (!std::isfinite(values[i])) return i;
    }
    return -1;
}

void check_scores(const ScoreArray& scores) {
    if (scores.size() > 0xFFFFFFFFLL) {
        throw py::value_error("`scores` must have fewer than 2**32 entries, got " + text(scores.size()));
    }
    const float* values = scores.data();
    for (std::int64_t i = 0; i < scores.size(); ++i) {
        if (std::isnan(values[i])) throw py::value_error("`scores[" + text(i) + "]` is NaN, which has no rank");
    }
}

IndexArray count_kept(const IndexArray& limits, const IndexArray& first_unit, const py::object& sparsities) {
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
        const WidthLimits known{row[0], row[1], row[2], row[3], row[4]};
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
            kept_units(known, first_unit.data()[group + 1] - first_unit.data()[group], sparsity);
    }
    return kept;
}

BoolArray select(const ScoreArray& scores, const IndexArray& first_unit, const IndexArray& kept) {
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
    select_groups(scores.data(), first_unit.data(), num_groups, kept.data(), keys.data(), keep.mutable_data());
    return keep;
}

std::int64_t checked_kept_width(std::int64_t initial, double sparsity) {
    if (initial < 0 || initial > std::int64_t{1} << 40 || !(sparsity >= 0.0 && sparsity <= 1.0)) {
        throw py::value_error("`initial` must lie in [0, 2**40] and `sparsity` in [0, 1], got " + text(initial) +
                              " and " + std::to_string(sparsity));
    }
    return kept_width(initial, sparsity);
}

}  // namespace

void bind_select(py::module_& module) {
    module.def("first_not_finite", &first_not_finite, py::arg("scores").noconvert(),
               "Index of the first score that is NaN or infinite, -1 where there is none.");
    module.def("kept_units", &count_kept, py::arg("limits").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("sparsities"), "Units that every group keeps at its sparsity, or at one that all have.");
    module.def("kept_width", &checked_kept_width, py::arg("initial"), py::arg("sparsity"),
               "initial - floor(initial * sparsity + 1e-9).");
    module.def("select_groups", &select, py::arg("scores").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("kept").noconvert(),
               "Per unit whether it is among the `kept` highest of its group; of equal scores the lower index is.");
}

}  // namespace gsprune
