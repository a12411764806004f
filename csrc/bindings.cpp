// The only file that knows Python: it checks every argument, owns the results and releases the GIL around the work.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "components.hpp"
#include "select.hpp"

namespace py = pybind11;

namespace {

using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using ScoreArray = py::array_t<float, py::array::c_style>;

std::string text(std::int64_t value) { return std::to_string(value); }

void check_vector(const py::array& array, const char* name) {
    if (array.ndim() != 1) {
        throw py::value_error(std::string("`") + name + "` must have one dimension, got " + text(array.ndim()));
    }
}

void check_nodes(const IndexArray& nodes, std::int64_t num_nodes, const char* name) {
    const std::int64_t* values = nodes.data();
    for (std::int64_t i = 0; i < nodes.size(); ++i) {
        if (values[i] < 0 || values[i] >= num_nodes) {
            throw py::value_error(std::string("`") + name + "[" + text(i) + "]` must lie in [0, num_nodes=" +
                                  text(num_nodes) + "), got " + text(values[i]));
        }
    }
}

IndexArray connected_components(std::int64_t num_nodes, const IndexArray& a, const IndexArray& b) {
    if (num_nodes < 0) throw py::value_error("`num_nodes` must be >= 0, got " + text(num_nodes));
    check_vector(a, "a");
    check_vector(b, "b");
    if (a.size() != b.size()) {
        throw py::value_error("`a` and `b` must have the same length, got " + text(a.size()) + " and " + text(b.size()));
    }
    check_nodes(a, num_nodes, "a");
    check_nodes(b, num_nodes, "b");
    IndexArray labels(num_nodes);
    const std::int64_t* first = a.data();
    const std::int64_t* second = b.data();
    std::int64_t* out = labels.mutable_data();
    const std::int64_t num_edges = a.size();
    {
        const py::gil_scoped_release unlocked;
        gsprune::connected_components(num_nodes, first, second, num_edges, out);
    }
    return labels;
}

IndexArray select_kept(const ScoreArray& scores, std::int64_t keep) {
    check_vector(scores, "scores");
    const std::int64_t num_scores = scores.size();
    if (num_scores > 0xFFFFFFFFLL) throw py::value_error("`scores` must have fewer than 2**32 entries, got " + text(num_scores));
    if (keep < 0 || keep > num_scores) {
        throw py::value_error("`keep` must lie in [0, len(scores)=" + text(num_scores) + "], got " + text(keep));
    }
    const float* values = scores.data();
    for (std::int64_t i = 0; i < num_scores; ++i) {
        if (std::isnan(values[i])) throw py::value_error("`scores[" + text(i) + "]` is NaN, which has no rank");
    }
    IndexArray kept(keep);
    std::int64_t* out = kept.mutable_data();
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(num_scores));
    {
        const py::gil_scoped_release unlocked;
        gsprune::select_highest(values, num_scores, keep, keys.data(), out);
    }
    return kept;
}

/// Calls `entry[0](*entry[1:])`; the result is a new reference, or null with a Python error set.
PyObject* call_entry(PyObject* entry) {
    PyObject* const* items = &PyTuple_GET_ITEM(entry, 0);
    return PyObject_Vectorcall(items[0], items + 1, static_cast<std::size_t>(PyTuple_GET_SIZE(entry) - 1), nullptr);
}

void check_calls(const py::list& calls, const char* name) {
    for (std::size_t i = 0; i < calls.size(); ++i) {
        const py::handle entry = calls[i];
        if (!PyTuple_Check(entry.ptr()) || PyTuple_GET_SIZE(entry.ptr()) == 0) {
            throw py::value_error(std::string("`") + name + "[" + text(static_cast<std::int64_t>(i)) +
                                  "]` must be a tuple (function, *arguments)");
        }
    }
}

void apply_all(const py::list& calls, const py::list& undo) {
    check_calls(calls, "calls");
    check_calls(undo, "undo");
    if (calls.size() != undo.size()) {
        throw py::value_error("`calls` and `undo` must have the same length, got " +
                              text(static_cast<std::int64_t>(calls.size())) + " and " +
                              text(static_cast<std::int64_t>(undo.size())));
    }
    // Copies, so that a call that changes the lists cannot pull the entries away.
    const py::tuple forward(calls);
    const py::tuple backward(undo);
    for (std::size_t done = 0; done < forward.size(); ++done) {
        PyObject* result = call_entry(PyTuple_GET_ITEM(forward.ptr(), static_cast<py::ssize_t>(done)));
        if (result != nullptr) {
            Py_DECREF(result);
            continue;
        }
        const py::error_already_set cause;
        // The call that failed may have done a part of its work, so it is undone as well.
        for (std::size_t back = done + 1; back-- > 0;) {
            result = call_entry(PyTuple_GET_ITEM(backward.ptr(), static_cast<py::ssize_t>(back)));
            if (result == nullptr) {
                PyErr_WriteUnraisable(PyTuple_GET_ITEM(backward.ptr(), static_cast<py::ssize_t>(back)));
            } else {
                Py_DECREF(result);
            }
        }
        throw cause;
    }
}

}  // namespace

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of gsprune.";
    module.def("connected_components", &connected_components, py::arg("num_nodes"), py::arg("a").noconvert(),
               py::arg("b").noconvert(), "Smallest node of every node's component.");
    module.def("select", &select_kept, py::arg("scores").noconvert(), py::arg("keep"),
               "Sorted indices of the `keep` highest scores; of equal scores the lower index is kept.");
    module.def("apply_all", &apply_all, py::arg("calls"), py::arg("undo"),
               "Make all calls without returning to the interpreter; if one raises, undo those made and raise.");
}
