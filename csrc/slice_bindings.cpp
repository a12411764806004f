#include "slice_bindings.hpp"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "slice.hpp"
#include "torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

/// The patterns of a call; an array that several of them use is checked and resolved once.
class Patterns {
public:
    explicit Patterns(const py::list& patterns) {
        for (std::size_t i = 0; i < patterns.size(); ++i) {
            SlicePattern resolved;
            for (const py::handle entry : py::reinterpret_borrow<py::iterable>(patterns[i])) {
                if (!PyTuple_Check(entry.ptr()) || PyTuple_GET_SIZE(entry.ptr()) != 2) {
                    throw py::value_error("`patterns[" + text(i) + "]` must hold pairs (axis, positions)");
                }
                const auto axis = py::handle(PyTuple_GET_ITEM(entry.ptr(), 0)).cast<std::int64_t>();
                if (axis < 0 || axis >= max_dims) {
                    throw py::value_error("`patterns[" + text(i) + "]` has axis " + text(axis) +
                                          ", which must lie in [0, ndim)");
                }
                const int known_axis = static_cast<int>(axis);
                for (const AxisKeep& other : resolved) {
                    if (other.axis == known_axis) {
                        throw py::value_error("`patterns[" + text(i) + "]` has axis " + text(axis) + " twice");
                    }
                }
                resolved.push_back({known_axis, resolve(PyTuple_GET_ITEM(entry.ptr(), 1), i)});
            }
            patterns_.push_back(std::move(resolved));
        }
    }

    [[nodiscard]] const std::vector<SlicePattern>& all() const noexcept { return patterns_; }

private:
    const Keep* resolve(py::handle positions, std::size_t index) {
        const Keep*& known = keep_of_[positions.ptr()];
        if (known != nullptr) return known;
        const bool is_array = py::isinstance<IndexArray>(positions);
        const auto array = is_array ? py::reinterpret_borrow<IndexArray>(positions) : IndexArray();
        if (!is_array || array.ndim() != 1 ||
            reinterpret_cast<std::uintptr_t>(array.data()) % alignof(std::int64_t) != 0) {
            throw py::value_error("`patterns[" + text(index) +
                                  "]` must hold positions as contiguous one-dimensional int64 arrays, aligned");
        }
        Keep keep;
        const std::int64_t bad = resolve_keep(array.data(), array.size(), keep);
        if (bad >= 0) {
            throw py::value_error("`patterns[" + text(index) +
                                  "]` must hold positions >= 0 in ascending order without repeats, got " +
                                  text(array.data()[bad]) + " at index " + text(bad));
        }
        known = &keeps_.emplace_back(std::move(keep));
        return known;
    }

    std::deque<Keep> keeps_;  // a deque: growing moves nothing
    std::unordered_map<PyObject*, const Keep*> keep_of_;
    std::vector<SlicePattern> patterns_;
};

/// The shape of the result, checked.
void shrink(View& view, const SlicePattern& pattern, std::size_t which, std::size_t index) {
    for (const AxisKeep& entry : pattern) {
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
std::vector<std::size_t> largest_first(const std::vector<SliceJob>& jobs) {
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
    const Isa known_isa = parse_isa(isa);
    const Patterns known(patterns);
    std::vector<SliceJob> jobs(tensors.size());
    std::vector<dlpack::DataType> types(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        SliceJob& job = jobs[i];
        const TorchTensor source = read_tensor(tensors[i], {"tensors", i});
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
        set_dense_strides(job.target, memory_order(job.source));
    }
    // All checks are done: only now is anything made.
    py::list results(tensors.size());
    for (const std::size_t i : largest_first(jobs)) {
        results[i] = make_tensor(jobs[i].target, types[i], tensors[i]);
    }
    {
        const py::gil_scoped_release unlocked;
        slice_all(jobs, known.all(), known_isa, num_threads);
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
        const std::optional<View> wanted = peek_shape(parameters[i]);
        PyObject* key = nullptr;
        PyObject* value = nullptr;
        Py_ssize_t position = 0;
        while (PyDict_Next(state.ptr(), &position, &key, &value) != 0) {
            if (value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value)) continue;
            const std::optional<View> got = peek_shape(value);
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

void bind_slices(py::module_& module) {
    module.def("slice", &slice_tensors, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
               py::arg("num_threads"), py::arg("isa"), "The kept part of every tensor in new tensors.");
    module.def("states_like", &states_like, py::arg("parameters"), py::arg("states"),
               "Values of states with their parameter's shape, the parameter of each, and (parameter, key, value) of"
               " what is neither like it nor a scalar.");
}

}  // namespace gsprune
