#include "python/sum_arguments.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "python/arguments.hpp"
#include "python/sources.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

/// Reads the axes of one job and checks that they are distinct and in range.
std::vector<int> read_axes(py::handle entry, int ndim, std::size_t index) {
    std::vector<int> axes;
    if (PySequence_Check(entry.ptr()) == 0) {
        throw py::type_error("`axes[" + text(index) + "]` must be a tuple of integers, got " +
                             py::repr(entry).cast<std::string>());
    }
    const auto items = PyTuple_Check(entry.ptr()) ? py::reinterpret_borrow<py::tuple>(entry)
                                                  : py::tuple(py::reinterpret_borrow<py::object>(entry));
    for (const py::handle item : items) {
        const std::int64_t axis = read_integer(item, {"axes", index});
        if (axis < 0 || axis >= ndim) {
            throw py::value_error("`axes[" + text(index) + "]` must lie in [0, " + std::to_string(ndim) +
                                  "), the dimensions of `tensors[" + text(index) + "]`, got " + text(axis));
        }
        for (const int other : axes) {
            if (other == axis) throw py::value_error("`axes[" + text(index) + "]` has " + text(axis) + " twice");
        }
        axes.push_back(static_cast<int>(axis));
    }
    return axes;
}

/// Fills and checks one job, except for its results.
void read_sum_job(SumJob& job, py::handle tensor, py::handle axes, py::handle other, bool reads_other,
                  std::size_t index, const dlpack::Device& device) {
    const TorchTensor values = read_tensor(tensor, {"tensors", index}, device);
    if (!values.dtype.has_value()) {
        throw py::value_error("`tensors[" + text(index) + "]` must be float32, float64, bfloat16 or float16, got " +
                              py::str(tensor.attr("dtype")).cast<std::string>());
    }
    if (values.view.ndim == 0)
        throw py::value_error("`tensors[" + text(index) + "]` must have a dimension, got a scalar");
    job.values = values.view;
    job.dtype = *values.dtype;
    job.axes = read_axes(axes, values.view.ndim, index);
    if (reads_other) {
        if (other.is_none())
            throw py::value_error("`others[" + text(index) + "]` must be a tensor for this statistic, got None");
        const TorchTensor second = read_tensor(other, {"others", index}, device);
        if (second.dtype != values.dtype || second.view.ndim != values.view.ndim ||
            second.view.shape != values.view.shape) {
            throw py::value_error("`others[" + text(index) + "]` must have the shape and dtype of `tensors[" +
                                  text(index) + "]`, " + py::str(tensor.attr("shape")).cast<std::string>() + " " +
                                  py::str(tensor.attr("dtype")).cast<std::string>() + ", got " +
                                  py::str(other.attr("shape")).cast<std::string>() + " " +
                                  py::str(other.attr("dtype")).cast<std::string>());
        }
        job.others = second.view;
    }
}

}  // namespace

Statistic parse_statistic(const std::string& name) { return parse_name<Statistic>(name, statistic_names, "statistic"); }

SumArguments read_sum_arguments(const py::list& tensors, const py::list& axes, const py::object& others,
                                Statistic statistic, const dlpack::Device& device) {
    check_length(axes.size(), tensors.size(), "axes");
    const bool has_others = !others.is_none();
    if (has_others && !py::isinstance<py::list>(others)) throw py::type_error("`others` must be a list or None");
    const py::list other_tensors = has_others ? py::reinterpret_borrow<py::list>(others) : py::list();
    if (has_others) check_length(other_tensors.size(), tensors.size(), "others");
    std::vector<SumJob> jobs(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const py::handle other = has_others ? py::handle(other_tensors[i]) : py::handle(Py_None);
        read_sum_job(jobs[i], tensors[i], axes[i], other, needs_other(statistic), i, device);
    }
    Sources sources(device);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        SumJob& job = jobs[i];
        sources.add_dense(job.values, tensors[i], {"tensors", i});
        if (!needs_other(statistic)) continue;
        const py::object other = other_tensors[i];
        if (equivalent_layout(job.values, job.others)) {
            sources.add(job.others, other, {"others", i});
        } else {
            sources.add_copy(job.others, other, memory_order(job.values));
        }
    }
    if (!sources.copies().empty()) sources.read_addresses();
    if (!needs_other(statistic)) {
        for (SumJob& job : jobs) job.others = job.values;
    }
    return {std::move(jobs), sources.copies()};
}

}  // namespace gsprune
