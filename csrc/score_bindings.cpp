#include "score_bindings.hpp"

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "score.hpp"
#include "sum_arguments.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

using SumArray = py::array_t<double>;

struct Call {
    Statistic statistic;
    Isa isa;
    int num_threads;
    std::vector<SumJob> jobs;

    Call(const py::list& tensors, const py::list& axes, const py::object& others, const std::string& name, int threads,
         const std::string& isa_name)
        : statistic(parse_statistic(name)),
          isa(parse_isa(isa_name)),
          num_threads(threads),
          jobs(read_sum_jobs(tensors, axes, others, statistic, dlpack::cpu)) {
        check_threads(num_threads);
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
