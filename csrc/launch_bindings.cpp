// What the Triton kernels are told, for tensors on any one device: nothing here reads or writes their elements.

#include "launch_bindings.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "exchange.hpp"
#include "no_collection.hpp"
#include "score_tables.hpp"
#include "slice_arguments.hpp"
#include "slice_tables.hpp"
#include "sum_arguments.hpp"
#include "torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

using Table = py::array_t<std::int64_t>;

std::vector<Tile> read_tiles(const std::vector<std::pair<std::int64_t, std::int64_t>>& sizes) {
    std::vector<Tile> tiles;
    for (const auto& [rows, columns] : sizes) {
        if (rows < 1 || columns < 1) throw py::value_error("`tiles` must be >= 1 in both directions");
        tiles.push_back({rows, columns});
    }
    if (tiles.empty()) throw py::value_error("`tiles` must hold one at least");
    return tiles;
}

Table as_array(const std::vector<std::int64_t>& table) {
    Table array(static_cast<py::ssize_t>(table.size()));
    std::copy(table.begin(), table.end(), array.mutable_data());
    return array;
}

dlpack::Device device_of_first(const py::list& tensors) {
    return tensors.empty() ? dlpack::cpu : device_of(tensors[0], {"tensors", 0});
}

/// Copies that stand in for tensors which a kernel could not read as they lie; they must outlive the launch.
class Copies {
public:
    /// Lets `view` be a copy of `tensor` whose dimensions lie in `order` without gaps.
    void replace(View& view, py::handle tensor, const Order& order) {
        set_dense_strides(view, order);
        const py::object copy = TorchMaker(tensor.attr("device")).make(view, tensor);
        copy.attr("copy_")(tensor.attr("detach")());
        copies_.append(copy);
    }

    /// `replace` where the tensor has gaps or overlaps.
    void replace_if_gappy(View& view, py::handle tensor) {
        const Order order = memory_order(view);
        if (!is_dense(view, order)) replace(view, tensor, order);
    }

    [[nodiscard]] const py::list& all() const noexcept { return copies_; }

private:
    py::list copies_;
};

py::tuple make_score_tables(const py::list& tensors, const py::list& axes, const py::object& others,
                            const std::string& statistic,
                            const std::vector<std::pair<std::int64_t, std::int64_t>>& tiles, std::int64_t fold_outputs,
                            std::int64_t max_steps, std::int64_t busy_tiles) {
    if (fold_outputs < 1 || max_steps < 1 || busy_tiles < 1) {
        throw py::value_error("`fold_outputs`, `max_steps` and `busy_tiles` must be >= 1");
    }
    const ScoreTiling tiling{read_tiles(tiles), fold_outputs, max_steps, busy_tiles};
    const Statistic known = parse_statistic(statistic);
    std::vector<SumJob> jobs = read_sum_jobs(tensors, axes, others, known, device_of_first(tensors));
    Copies copies;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        SumJob& job = jobs[i];
        copies.replace_if_gappy(job.values, tensors[i]);
        if (needs_other(known) && !same_layout(job.values, job.others)) {
            copies.replace(job.others, others.cast<py::list>()[i], memory_order(job.values));
        }
    }
    const ScoreTables made = score_tables(jobs, tiling);
    return py::make_tuple(as_array(made.table), made.num_jobs, made.fold_base, made.num_folds, made.programs,
                          made.fold_programs, made.num_partials, made.num_sums, copies.all());
}

py::tuple make_slice_tables(const py::list& tensors, const py::list& patterns, const py::list& pattern_of,
                            const std::vector<std::pair<std::int64_t, std::int64_t>>& tiles, std::int64_t max_columns) {
    const SliceTiling tiling{read_tiles(tiles), max_columns};
    check_length(pattern_of.size(), tensors.size(), "pattern_of");
    const NoCollection no_collection;  // which a few hundred new objects would bring about
    const Patterns known(patterns);
    const dlpack::Device device = device_of_first(tensors);
    std::vector<SliceJob> jobs(tensors.size());
    dlpack::DataType type;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        read_slice_job(jobs[i], type, tensors[i], pattern_of[i], i, known, device);
    }
    Copies copies;
    py::list results(jobs.size());
    TorchMaker maker(jobs.empty() ? py::none() : py::object(tensors[0].attr("device")), known.all().size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        copies.replace_if_gappy(jobs[i].source, tensors[i]);
        results[i] = maker.make(jobs[i].target, tensors[i], jobs[i].pattern);
    }
    const SliceTables made = slice_tables(jobs, known.all(), tiling);
    return py::make_tuple(results, as_array(made.table), made.num_jobs, made.keep_base, made.programs, copies.all());
}

void exchange(const py::list& tensors, const py::list& replacements, std::size_t num_owned, const py::list& entries) {
    check_length(replacements.size(), tensors.size(), "replacements");
    const NoCollection no_collection;
    Exchange change(tensors, num_owned, entries);
    const dlpack::Device device = device_of_first(tensors);
    std::vector<View> views;
    views.reserve(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        views.push_back(read_tensor(tensors[i], {"tensors", i}, device).view);
    }
    change.install(replacements, [&views](std::size_t i) -> const View& { return views[i]; });
}

}  // namespace

void bind_launches(py::module_& module) {
    module.def("score_tables", &make_score_tables, py::arg("tensors"), py::arg("axes"), py::arg("others"),
               py::arg("statistic"), py::arg("tiles"), py::arg("fold_outputs"), py::arg("max_steps"),
               py::arg("busy_tiles"),
               "The table of `score_kernel` and `fold_kernel`; numbers of jobs, of the fold's base, of folds, of both"
               " grids, of partials and of sums; and copies that must outlive the launch.");
    module.def("slice_tables", &make_slice_tables, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
               py::arg("tiles"), py::arg("max_columns"),
               "New tensors, unfilled; the table of `slice_kernel`, the number of jobs, of the positions' base, of the"
               " grid; and copies that must outlive the launch.");
    module.def("exchange", &exchange, py::arg("tensors"), py::arg("replacements"), py::arg("num_owned"),
               py::arg("entries"),
               "Every tensor takes over what its replacement stands on, every (dictionary, key, value) is set: all, or"
               " where it fails nothing.");
}

}  // namespace gsprune
