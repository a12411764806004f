#include <cstdint>
#include <string>
#include <vector>

#include "python/arguments.hpp"
#include "python/arrays.hpp"
#include "python/bindings.hpp"
#include "python/sum_arguments.hpp"
#include "score/axis_sums.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

SumArray sum_axes(const py::list& tensors, const py::list& axes, const py::object& others, const std::string& statistic,
                  int num_threads, const std::string& isa) {
    const Statistic summand = parse_statistic(statistic);
    const Isa instructions = parse_isa(isa);
    SumArguments arguments = read_sum_arguments(tensors, axes, others, summand, dlpack::cpu);
    std::vector<SumJob>& jobs = arguments.jobs;
    check_threads(num_threads);
    const auto length = [](const SumJob& job, int axis) { return job.values.shape[static_cast<std::size_t>(axis)]; };
    std::int64_t total = 0;
    for (const SumJob& job : jobs) {
        for (const int axis : job.axes) total += length(job, axis);
    }
    SumArray sums(total);
    double* next = sums.mutable_data();
    for (SumJob& job : jobs) {
        for (const int axis : job.axes) {
            job.results.push_back(next);
            next += length(job, axis);
        }
    }
    const py::gil_scoped_release unlocked;
    axis_sums(jobs, summand, instructions, num_threads);
    return sums;
}

}  // namespace

void bind_score(py::module_& module) {
    module.attr("STATISTICS") = as_tuple(statistic_names);
    module.def("axis_sums", &sum_axes, py::arg("tensors"), py::arg("axes"), py::arg("others"), py::arg("statistic"),
               py::arg("num_threads"), py::arg("isa"),
               "Float64 sums along axes in one array, ordered by tensor, then by axis.");
}

}  // namespace gsprune
