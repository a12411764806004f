#include "python/slice_arguments.hpp"

#include <string>
#include <utility>

#include "python/arguments.hpp"
#include "python/arrays.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

/// Shrinks the shape of `view` to the kept positions, checked.
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

}  // namespace

Patterns::Patterns(const py::list& patterns) {
    for (std::size_t i = 0; i < patterns.size(); ++i) {
        SlicePattern resolved;
        // A generator would drop its arrays while they are in use.
        if (!py::isinstance<py::tuple>(patterns[i]) && !py::isinstance<py::list>(patterns[i])) {
            throw py::value_error("`patterns[" + text(i) + "]` must be a tuple or a list");
        }
        for (const py::handle entry : py::reinterpret_borrow<py::iterable>(patterns[i])) {
            if (!PyTuple_Check(entry.ptr()) || PyTuple_GET_SIZE(entry.ptr()) != 2) {
                throw py::value_error("`patterns[" + text(i) + "]` must hold pairs (axis, positions)");
            }
            const std::int64_t axis = read_integer(PyTuple_GET_ITEM(entry.ptr(), 0), {"patterns", i});
            if (axis < 0 || axis >= max_dims) {
                throw py::value_error("`patterns[" + text(i) + "]` has axis " + text(axis) +
                                      ", which must lie in [0, ndim)");
            }
            for (const AxisKeep& other : resolved) {
                if (other.axis == axis) {
                    throw py::value_error("`patterns[" + text(i) + "]` has axis " + text(axis) + " twice");
                }
            }
            resolved.push_back({static_cast<int>(axis), resolve(PyTuple_GET_ITEM(entry.ptr(), 1), i)});
        }
        patterns_.push_back(std::move(resolved));
    }
}

const Keep* Patterns::resolve(py::handle positions, std::size_t index) {
    const Keep*& cached = keep_of_[positions.ptr()];
    if (cached != nullptr) return cached;
    const bool is_array = py::isinstance<IndexArray>(positions);
    const auto array = is_array ? py::reinterpret_borrow<IndexArray>(positions) : IndexArray();
    if (!is_array || array.ndim() != 1 || reinterpret_cast<std::uintptr_t>(array.data()) % alignof(std::int64_t) != 0) {
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
    cached = &keeps_.emplace_back(std::move(keep));
    return cached;
}

void read_slice_job(SliceJob& job, dlpack::DataType& type, py::handle tensor, py::handle pattern, std::size_t index,
                    const Patterns& patterns, const dlpack::Device& device) {
    const TorchTensor source = read_tensor(tensor, {"tensors", index}, device);
    job.source = source.view;
    type = source.type;
    const std::int64_t which = read_integer(pattern, {"pattern_of", index});
    if (which < 0 || which >= static_cast<std::int64_t>(patterns.all().size())) {
        throw py::value_error("`pattern_of[" + text(index) + "]` must lie in [0, " + text(patterns.all().size()) +
                              "), the number of patterns, got " + text(which));
    }
    job.pattern = static_cast<std::size_t>(which);
    job.target = job.source;
    shrink(job.target, patterns.all()[job.pattern], job.pattern, index);
    set_dense_strides(job.target, memory_order(job.source));
}

}  // namespace gsprune
