#include "python/cut_plan.hpp"

#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "python/arguments.hpp"
#include "python/no_collection.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;
using py::literals::operator""_a;

namespace gsprune {

namespace {

/// Collects the gradients and optimizer states that are sliced like their parameters.
class Dependents {
public:
    /// Appends to `tensors`, which begins with the parameters, and to their `pattern_of`.
    Dependents(py::list& tensors, py::list& pattern_of)
        : tensors_(tensors), pattern_of_(pattern_of), num_parameters_(tensors.size()) {
        shapes_.reserve(num_parameters_);
        index_of_.reserve(num_parameters_);
        for (std::size_t i = 0; i < num_parameters_; ++i) {
            shapes_.push_back(peek_shape(tensors[i]));
            index_of_.emplace(py::handle(tensors[i]).ptr(), i);
        }
    }

    void add_gradients() {
        const py::str name("grad");
        for (std::size_t i = 0; i < num_parameters_; ++i) {
            const py::object gradient = tensors_[i].attr(name);
            if (gradient.is_none()) continue;
            if (has_shape_of(i, peek_shape(gradient))) {
                add(gradient, i);
            } else {
                others_.append(py::make_tuple(i, py::none(), name, gradient));
            }
        }
    }

    /// `states` is the parameter -> {key: value} of optimizer number `which`.
    void add_states(const py::dict& states, std::size_t which) {
        PyObject* parameter = nullptr;
        PyObject* state = nullptr;
        Py_ssize_t position = 0;
        while (PyDict_Next(states.ptr(), &position, &parameter, &state) != 0) {
            const auto found = index_of_.find(parameter);
            if (found == index_of_.end()) continue;
            const auto owned = py::reinterpret_borrow<py::object>(state);  // code of a subclass may drop it
            if (PyDict_Check(state)) {
                add_state(state, found->second, which);
            } else {
                others_.append(py::make_tuple(found->second, which, py::none(), owned));
            }
        }
    }

    [[nodiscard]] const py::list& others() const noexcept { return others_; }

private:
    void add_state(PyObject* state, std::size_t owner, std::size_t which) {
        PyObject* key = nullptr;
        PyObject* value = nullptr;
        Py_ssize_t position = 0;
        while (PyDict_Next(state, &position, &key, &value) != 0) {
            if (value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value)) continue;
            const auto owned_key = py::reinterpret_borrow<py::object>(key);
            const auto owned = py::reinterpret_borrow<py::object>(value);
            const std::optional<View> shape = peek_shape(owned);
            if (has_shape_of(owner, shape)) {
                add(owned, owner);
            } else if (!shape || shape->numel() != 1) {
                others_.append(py::make_tuple(owner, which, owned_key, owned));
            }
        }
    }

    [[nodiscard]] bool has_shape_of(std::size_t owner, const std::optional<View>& shape) const noexcept {
        const std::optional<View>& wanted = shapes_[owner];
        return wanted && shape && wanted->ndim == shape->ndim && wanted->shape == shape->shape;
    }

    void add(py::handle tensor, std::size_t owner) {
        tensors_.append(tensor);
        pattern_of_.append(py::handle(pattern_of_[owner]));
    }

    py::list tensors_;
    py::list pattern_of_;
    std::size_t num_parameters_;
    std::vector<std::optional<View>> shapes_;
    std::unordered_map<PyObject*, std::size_t> index_of_;
    py::list others_;
};

/// A product of a larger multiplier and a length could overflow.
constexpr std::int64_t largest_multiplier = std::int64_t{1} << 31U;

void check_integer(const StoredInteger& integer, std::int64_t num_vectors) {
    const auto& [attributes, name, vector, multiplier, divisor] = integer;
    if (vector < 0 || vector >= num_vectors || multiplier < 0 || multiplier > largest_multiplier || divisor < 1) {
        throw py::value_error(
            "an integer of `modules` must be (dictionary, name, vector, multiplier in [0, 2^31], divisor >= 1)");
    }
}

}  // namespace

py::object plan_cuts(const Cuts& cuts, const py::list& keeps, const IndexArray& starts,
                     const std::vector<ModuleParts>& modules, const std::vector<py::dict>& states) {
    const NoCollection no_collection;  // a collection may run Python code that changes the states
    py::list patterns;
    std::vector<py::object> number_of;  // the number of each cut's pattern; null if the cut removes nothing
    for (const auto& axes : cuts) {
        py::list pattern;
        for (const auto& [axis, vector] : axes) {
            const py::object keep = keeps[vector];
            if (!keep.is_none()) pattern.append(py::make_tuple(axis, keep));
        }
        number_of.push_back(pattern.empty() ? py::object() : py::int_(patterns.size()));
        if (!pattern.empty()) patterns.append(py::tuple(pattern));
    }
    py::list tensors;
    py::list pattern_of;
    py::list entries;
    std::unordered_set<PyObject*> added;  // modules may share tensors
    std::size_t num_of_first = 0;
    for (std::size_t i = 0; i < modules.size(); ++i) {
        const auto& [parts, cut_of, integers] = modules[i];
        for (std::size_t j = 0; j < parts.size(); ++j) {
            const py::object& number = number_of.at(cut_of.at(j));
            if (!number || !added.insert(parts[j].ptr()).second) continue;
            tensors.append(parts[j]);
            pattern_of.append(number);
        }
        if (i == 0) num_of_first = tensors.size();
        for (const StoredInteger& integer : integers) {
            const auto& [attributes, name, vector, multiplier, divisor] = integer;
            check_integer(integer, starts.size() - 1);
            const std::int64_t length = starts.at(vector + 1) - starts.at(vector);
            const py::int_ present(length * multiplier / divisor);
            if (present.not_equal(attributes[name])) entries.append(py::make_tuple(attributes, name, present));
        }
    }
    const std::size_t num_owned = tensors.size();
    Dependents dependents(tensors, pattern_of);
    dependents.add_gradients();
    for (std::size_t i = 0; i < states.size(); ++i) dependents.add_states(states[i], i);
    return as_namespace(py::dict("patterns"_a = patterns, "tensors"_a = tensors, "pattern_of"_a = pattern_of,
                                 "num_owned"_a = num_owned, "num_of_first"_a = num_of_first, "entries"_a = entries,
                                 "others"_a = dependents.others()));
}

}  // namespace gsprune
