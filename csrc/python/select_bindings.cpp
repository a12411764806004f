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

// The checks throw ValueError with the argument's name.

void check_vector(const py::array& array, const char* name) {
    if (array.ndim() != 1) {
        throw py::value_error(std::string("`") + name + "` must have one dimension, got " + text(array.ndim()));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(array.itemsize()) != 0) {
        throw py::value_error(std::string("`") + name + "` must be aligned to its elements; copy the array");
    }
}

void check_size(const py::array& array, std::int64_t size, const char* name) {
    check_vector(array, name);
    if (array.size() != size) {
        throw py::value_error(std::string("`") + name + "` must have " + text(size) + " entries, got " +
                              text(array.size()));
    }
}

void check_bounds(const IndexArray& bounds, const char* name) {
    check_vector(bounds, name);
    const std::int64_t* values = bounds.data();
    bool is_good = bounds.size() > 0 && values[0] == 0;
    for (std::int64_t i = 1; is_good && i < bounds.size(); ++i) is_good = values[i] >= values[i - 1];
    if (!is_good) throw py::value_error(std::string("`") + name + "` must begin at 0 and not decrease");
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

}  // namespace

void bind_select(py::module_& module) {
    module.def("select_groups", &select, py::arg("scores").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("kept").noconvert(),
               "Mask of the `kept` highest scores of each group; of equal scores the lower index is kept.");
}

}  // namespace gsprune
