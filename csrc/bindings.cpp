// What takes tensors: checks every argument, owns the results and releases the GIL around the work. Beside this file
// only array_bindings.cpp and torch_tensors.cpp know Python.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "array_bindings.hpp"
#include "isa.hpp"
#include "memory.hpp"
#include "score.hpp"
#include "slice.hpp"
#include "torch_tensors.hpp"

namespace py = pybind11;

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

std::string text(std::int64_t value) { return std::to_string(value); }
std::string text(std::size_t value) { return std::to_string(value); }

void check_length(std::size_t got, std::size_t expected, const char* name) {
    if (got != expected) {
        throw py::value_error(std::string("`") + name + "` must have an entry per tensor, that is " + text(expected) +
                              ", got " + text(got));
    }
}

void check_threads(int num_threads) {
    if (num_threads < 1) throw py::value_error("`num_threads` must be >= 1, got " + std::to_string(num_threads));
}

constexpr const char* isa_names[] = {"plain", "avx2", "avx512"};

std::string best_isa_name() { return isa_names[static_cast<int>(gsprune::best_isa())]; }

gsprune::Isa parse_isa(const std::string& name) {
    if (name == "auto") return gsprune::best_isa();
    for (int i = 0; i <= static_cast<int>(gsprune::best_isa()); ++i) {
        if (name == isa_names[i]) return static_cast<gsprune::Isa>(i);
    }
    throw py::value_error("`isa` must be 'auto', or 'plain', 'avx2' or 'avx512' up to '" + best_isa_name() +
                          "', the best of this machine, got '" + name + "'");
}

gsprune::Statistic parse_statistic(const std::string& name) {
    constexpr const char* names[] = {"abs", "square", "product", "abs_product", "square_product"};
    for (int i = 0; i < 5; ++i) {
        if (name == names[i]) return static_cast<gsprune::Statistic>(i);
    }
    throw py::value_error("`statistic` must be 'abs', 'square', 'product', 'abs_product' or 'square_product', got '" +
                          name + "'");
}

/// Axes of one job: distinct and in range.
std::vector<int> read_axes(py::handle entry, int ndim, std::size_t index) {
    std::vector<int> axes;
    for (const py::handle item : py::reinterpret_borrow<py::iterable>(entry)) {
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

/// Checks one job and makes its result arrays, a tuple of which is returned.
py::tuple read_sum_job(gsprune::SumJob& job, py::handle tensor, py::handle axes, py::handle other, bool reads_other,
                       std::size_t index) {
    const gsprune::TorchTensor values = gsprune::read_tensor(tensor, {"tensors", index});
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
        const gsprune::TorchTensor second = gsprune::read_tensor(other, {"others", index});
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
    py::tuple results(job.axes.size());
    for (std::size_t i = 0; i < job.axes.size(); ++i) {
        py::array_t<double> sums(values.view.shape[static_cast<std::size_t>(job.axes[i])]);
        job.results.push_back(sums.mutable_data());
        results[i] = std::move(sums);
    }
    return results;
}

py::list sum_axes(const py::list& tensors, const py::list& axes, const py::list& others, const std::string& statistic,
                  int num_threads, const std::string& isa) {
    check_length(axes.size(), tensors.size(), "axes");
    check_length(others.size(), tensors.size(), "others");
    check_threads(num_threads);
    const gsprune::Isa known_isa = parse_isa(isa);
    const gsprune::Statistic known_statistic = parse_statistic(statistic);
    const bool reads_others = gsprune::needs_other(known_statistic);
    std::vector<gsprune::SumJob> jobs(tensors.size());
    py::list results(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        results[i] = read_sum_job(jobs[i], tensors[i], axes[i], others[i], reads_others, i);
    }
    {
        const py::gil_scoped_release unlocked;
        gsprune::axis_sums(jobs, known_statistic, known_isa, num_threads);
    }
    return results;
}

/// The patterns of a call; an array that several of them use is checked and resolved once.
class Patterns {
public:
    explicit Patterns(const py::list& patterns) {
        for (std::size_t i = 0; i < patterns.size(); ++i) {
            gsprune::SlicePattern resolved;
            for (const py::handle entry : py::reinterpret_borrow<py::iterable>(patterns[i])) {
                if (!PyTuple_Check(entry.ptr()) || PyTuple_GET_SIZE(entry.ptr()) != 2) {
                    throw py::value_error("`patterns[" + text(i) + "]` must hold pairs (axis, positions)");
                }
                const auto axis = py::handle(PyTuple_GET_ITEM(entry.ptr(), 0)).cast<std::int64_t>();
                if (axis < 0 || axis >= gsprune::max_dims) {
                    throw py::value_error("`patterns[" + text(i) + "]` has axis " + text(axis) +
                                          ", which must lie in [0, ndim)");
                }
                const int known_axis = static_cast<int>(axis);
                for (const gsprune::AxisKeep& other : resolved) {
                    if (other.axis == known_axis) {
                        throw py::value_error("`patterns[" + text(i) + "]` has axis " + text(axis) + " twice");
                    }
                }
                resolved.push_back({known_axis, resolve(PyTuple_GET_ITEM(entry.ptr(), 1), i)});
            }
            patterns_.push_back(std::move(resolved));
        }
    }

    [[nodiscard]] const std::vector<gsprune::SlicePattern>& all() const noexcept { return patterns_; }

private:
    const gsprune::Keep* resolve(py::handle positions, std::size_t index) {
        const gsprune::Keep*& known = keep_of_[positions.ptr()];
        if (known != nullptr) return known;
        const bool is_array = py::isinstance<IndexArray>(positions);
        const auto array = is_array ? py::reinterpret_borrow<IndexArray>(positions) : IndexArray();
        if (!is_array || array.ndim() != 1 ||
            reinterpret_cast<std::uintptr_t>(array.data()) % alignof(std::int64_t) != 0) {
            throw py::value_error("`patterns[" + text(index) +
                                  "]` must hold positions as contiguous one-dimensional int64 arrays, aligned");
        }
        gsprune::Keep keep;
        const std::int64_t bad = gsprune::resolve_keep(array.data(), array.size(), keep);
        if (bad >= 0) {
            throw py::value_error("`patterns[" + text(index) +
                                  "]` must hold positions >= 0 in ascending order without repeats, got " +
                                  text(array.data()[bad]) + " at index " + text(bad));
        }
        known = &keeps_.emplace_back(std::move(keep));
        return known;
    }

    std::deque<gsprune::Keep> keeps_;  // a deque: growing moves nothing
    std::unordered_map<PyObject*, const gsprune::Keep*> keep_of_;
    std::vector<gsprune::SlicePattern> patterns_;
};

/// The shape of the result, checked.
void shrink(gsprune::View& view, const gsprune::SlicePattern& pattern, std::size_t which, std::size_t index) {
    for (const gsprune::AxisKeep& entry : pattern) {
        const auto axis = static_cast<std::size_t>(entry.axis);
        if (entry.axis >= view.ndim) {
            throw py::value_error("`patterns[" + text(which) + "]` has axis " + std::to_string(entry.axis) +
                                  ", which must be < " + std::to_string(view.ndim) + ", the dimensions of `tensors[" +
                                  text(index) + "]`");
        }
        const std::int64_t last = entry.keep->count == 0 ? -1 : entry.keep->positions[entry.keep->count - 1];
        if (last >= view.shape[axis]) {
            throw py::value_error("`patterns[" + text(which) + "]` keeps position " + text(last) + " of axis " +
                                  std::to_string(entry.axis) + ", which must be < " + text(view.shape[axis]) +
                                  ", its size in `tensors[" + text(index) + "]`");
        }
        view.shape[axis] = entry.keep->count;
    }
}

/// In this order the blocks of the pool serve as many tensors as they can.
std::vector<std::size_t> largest_first(const std::vector<gsprune::SliceJob>& jobs) {
    std::vector<std::pair<std::int64_t, std::size_t>> sizes;
    sizes.reserve(jobs.size());
    for (std::size_t i = 0; i < jobs.size(); ++i)
        sizes.emplace_back(-jobs[i].target.numel() * jobs[i].target.itemsize, i);
    std::sort(sizes.begin(), sizes.end());
    std::vector<std::size_t> order;
    order.reserve(jobs.size());
    for (const auto& entry : sizes) order.push_back(entry.second);
    return order;
}

py::list slice_tensors(const py::list& tensors, const py::list& patterns, const py::list& pattern_of, int num_threads,
                       const std::string& isa) {
    check_length(pattern_of.size(), tensors.size(), "pattern_of");
    check_threads(num_threads);
    const gsprune::Isa known_isa = parse_isa(isa);
    const Patterns known(patterns);
    std::vector<gsprune::SliceJob> jobs(tensors.size());
    std::vector<gsprune::dlpack::DataType> types(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        gsprune::SliceJob& job = jobs[i];
        const gsprune::TorchTensor source = gsprune::read_tensor(tensors[i], {"tensors", i});
        job.source = source.view;
        types[i] = source.type;
        const auto which = pattern_of[i].cast<std::int64_t>();
        if (which < 0 || which >= static_cast<std::int64_t>(known.all().size())) {
            throw py::value_error("`pattern_of[" + text(i) + "]` must lie in [0, " + text(known.all().size()) +
                                  "), the number of patterns, got " + text(which));
        }
        job.pattern = static_cast<std::size_t>(which);
        job.target = job.source;
        shrink(job.target, known.all()[job.pattern], job.pattern, i);
        gsprune::set_dense_strides(job.target, gsprune::memory_order(job.source));
    }
    // All checks are done: only now is anything made.
    py::list results(tensors.size());
    for (const std::size_t i : largest_first(jobs)) {
        results[i] = gsprune::make_tensor(jobs[i].target, types[i], tensors[i]);
    }
    {
        const py::gil_scoped_release unlocked;
        gsprune::slice_all(jobs, known.all(), known_isa, num_threads);
    }
    return results;
}

/// The values of optimizer states that have their parameter's shape; whatever takes a closer look is left to Python.
py::tuple states_like(const py::list& parameters, const py::list& states) {
    check_length(states.size(), parameters.size(), "states");
    py::list found;
    py::list owners;
    py::list rest;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const py::handle state = states[i];
        if (!PyDict_Check(state.ptr())) throw py::type_error("`states[" + text(i) + "]` must be a dictionary");
        const py::int_ owner(i);
        const std::optional<gsprune::View> wanted = gsprune::peek_shape(parameters[i]);
        PyObject* key = nullptr;
        PyObject* value = nullptr;
        Py_ssize_t position = 0;
        while (PyDict_Next(state.ptr(), &position, &key, &value) != 0) {
            if (value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value)) continue;
            const std::optional<gsprune::View> got = gsprune::peek_shape(value);
            if (wanted && got && wanted->ndim == got->ndim && wanted->shape == got->shape) {
                found.append(py::handle(value));
                owners.append(owner);
            } else if (!got || got->numel() != 1) {
                rest.append(py::make_tuple(owner, py::handle(key), py::handle(value)));
            }
        }
    }
    return py::make_tuple(found, owners, rest);
}

}  // namespace

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of gsprune.";
    gsprune::bind_arrays(module);
    module.def("bind_torch", &gsprune::bind_torch, py::arg("tensor_type"), py::arg("exchange_api"),
               py::arg("empty_strided"), py::arg("float_dtypes"), "Hand over what the core has to know of torch.");
    module.def("best_isa", &best_isa_name, "The fastest instruction set of this machine that has kernels of its own.");
    module.def("axis_sums", &sum_axes, py::arg("tensors"), py::arg("axes"), py::arg("others"), py::arg("statistic"),
               py::arg("num_threads"), py::arg("isa"), "Float64 sums along axes, one pass over memory.");
    module.def("slice", &slice_tensors, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
               py::arg("num_threads"), py::arg("isa"), "The kept part of every tensor in new tensors.");
    module.def("states_like", &states_like, py::arg("parameters"), py::arg("states"),
               "Values of states with their parameter's shape, the parameter of each, and (parameter, key, value) of"
               " what is neither like it nor a scalar.");
    module.def("trim_reserve", &gsprune::trim_reserve, "Give reserved memory back; returns the number of bytes.");
    module.def(
        "pool_use", [] { return py::make_tuple(gsprune::pool_use().in_use, gsprune::pool_use().in_reserve); },
        "Bytes of large blocks in use and in reserve.");
}
