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

/// Index of the first NaN or infinite score, -1 if there is none.
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
    module.def("first_not_finite", &first_not_finite, py::arg("scores").noconvert(),
               "Index of the first NaN or infinite score, -1 if there is none.");
    module.def("select_groups", &select, py::arg("scores").noconvert(), py::arg("first_unit").noconvert(),
               py::arg("kept").noconvert(),
               "Mask of the `kept` highest scores of each group; of equal scores the lower index is kept.");
}

}  // namespace gsprune
