#include "score_bindings.hpp"

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "score.hpp"
#include "torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

using SumArray = py::array_t<double>;

Statistic parse_statistic(const std::string& name) {
    constexpr const char* names[] = {"abs", "square", "product", "abs_product", "square_product"};
    for (int i = 0; i < 5; ++i) {
        if (name == names[i]) return static_cast<Statistic>(i);
    }
    throw py::value_error("`statistic` must be 'abs', 'square', 'product', 'abs_product' or 'square_product', got '" +
                          name + "'");
}

/// Axes of one job: distinct and in range.
std::vector<int> read_axes(py::handle entry, int ndim, std::size_t index) {
    std::vector<int> axes;
    const auto items = PyTuple_Check(entry.ptr()) ? py::reinterpret_borrow<py::tuple>(entry)
                                                  : py::tuple(py::reinterpret_borrow<py::object>(entry));
    for (const py::handle item : items) {
        const auto axis = item.cast<std::int64_t>();
        if (axis < 0 || axis >= ndim) {
            throw py::value_error("`axes[" + text(index) + "]` must lie in [0, " + std::to_string(ndim) +
                                  "), the dimensions of `tensors[" + text(index) + "]`, got " + text(axis));
        }
        const int known = static_cast<int>(axis);
        for (const int other : axes) {
            if (other == known) throw py::value_error("`axes[" + text(index) + "]` has " + text(axis) + " twice");
        }
        axes.push_back(known);
    }
    return axes;
}

/// Checks one job, all but its results.
void read_sum_job(SumJob& job, py::handle tensor, py::handle axes, py::handle other, bool reads_other,
                  std::size_t index) {
    const TorchTensor values = read_tensor(tensor, {"tensors", index});
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
        const TorchTensor second = read_tensor(other, {"others", index});
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

/// A call's jobs, checked; where their sums go is left open.
struct Call {
    std::vector<SumJob> jobs;
    Statistic statistic;
    Isa isa;
    int num_threads;

    Call(const py::list& tensors, const py::list& axes, const py::object& others, const std::string& name, int threads,
         const std::string& isa_name)
        : jobs(tensors.size()), statistic(parse_statistic(name)), isa(parse_isa(isa_name)), num_threads(threads) {
        check_length(axes.size(), tensors.size(), "axes");
        check_threads(num_threads);
        const bool reads_others = needs_other(statistic);
        const bool has_others = !others.is_none();
        if (has_others && !py::isinstance<py::list>(others)) throw py::type_error("`others` must be a list or None");
        const py::list known = has_others ? py::reinterpret_borrow<py::list>(others) : py::list();
        if (has_others) check_length(known.size(), tensors.size(), "others");
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const py::handle other = has_others ? py::handle(known[i]) : py::handle(Py_None);
            read_sum_job(jobs[i], tensors[i], axes[i], other, reads_others, i);
        }
    }

    void run() const {
        const py::gil_scoped_release unlocked;
        axis_sums(jobs, statistic, isa, num_threads);
    }
};

std::int64_t length(const SumJob& job, std::size_t i) {
    return job.values.shape[static_cast<std::size_t>(job.axes[i])];
}

py::list sum_axes(const py::list& tensors, const py::list& axes, const py::object& others, const std::string& statistic,
                  int num_threads, const std::string& isa) {
    Call call(tensors, axes, others, statistic, num_threads, isa);
    py::list results(tensors.size());
    for (std::size_t index = 0; index < call.jobs.size(); ++index) {
        SumJob& job = call.jobs[index];
        py::tuple vectors(job.axes.size());
        for (std::size_t i = 0; i < job.axes.size(); ++i) {
            SumArray sums(length(job, i));
            job.results.push_back(sums.mutable_data());
            vectors[i] = std::move(sums);
        }
        results[index] = std::move(vectors);
    }
    call.run();
    return results;
}

SumArray sum_axes_flat(const py::list& tensors, const py::list& axes, const py::object& others,
                       const std::string& statistic, int num_threads, const std::string& isa) {
    Call call(tensors, axes, others, statistic, num_threads, isa);
    std::int64_t total = 0;
    for (const SumJob& job : call.jobs) {
        for (std::size_t i = 0; i < job.axes.size(); ++i) total += length(job, i);
    }
    SumArray sums(total);
    double* next = sums.mutable_data();
    for (SumJob& job : call.jobs) {
        for (std::size_t i = 0; i < job.axes.size(); ++i) {
            job.results.push_back(next);
            next += length(job, i);
        }
    }
    call.run();
    return sums;
}

}  // namespace

void bind_scores(py::module_& module) {
    module.def("axis_sums", &sum_axes, py::arg("tensors"), py::arg("axes"), py::arg("others"), py::arg("statistic"),
               py::arg("num_threads"), py::arg("isa"), "Float64 sums along axes, one pass over memory.");
    module.def("flat_axis_sums", &sum_axes_flat, py::arg("tensors"), py::arg("axes"), py::arg("others"),
               py::arg("statistic"), py::arg("num_threads"), py::arg("isa"),
               "`axis_sums` as one array: the vectors of one tensor after the other.");
}

}  // namespace gsprune
