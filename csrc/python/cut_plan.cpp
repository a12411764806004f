#include "python/cut_plan.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "python/arguments.hpp"
#include "python/no_collection.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;
using py::literals::operator""_a;

namespace gsprune {

namespace {

py::tuple tuple_at(py::handle list, std::size_t index, std::size_t size, const char* name) {
    const py::handle entry = PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(index));
    if (!PyTuple_Check(entry.ptr()) || static_cast<std::size_t>(PyTuple_GET_SIZE(entry.ptr())) != size) {
        throw py::type_error("`" + std::string(name) + "[" + text(index) + "]` must be a tuple of " + text(size));
    }
    return py::reinterpret_borrow<py::tuple>(entry);
}

/// Reads a number in [0, size), the entry `index` of the list `name`.
std::size_t number_at(const py::list& list, std::size_t index, std::size_t size, const char* name) {
    const std::int64_t number = read_integer(list[index], {name, index});
    if (number < 0 || static_cast<std::uint64_t>(number) >= size) {
        throw py::value_error("`" + std::string(name) + "[" + text(index) + "]` must lie in [0, " + text(size) +
                              "), got " + text(number));
    }
    return static_cast<std::size_t>(number);
}

/// The distinct patterns of a step: axes with their kept positions.
class CutPatterns {
public:
    /// `cuts` holds tuples of (axis, vector), `keeps` the kept positions of every vector (None: all).
    CutPatterns(const py::tuple& cuts, const py::list& keeps) : number_of_(cuts.size()) {
        for (std::size_t i = 0; i < cuts.size(); ++i) {
            const py::handle axes = cuts[i];
            if (!PyTuple_Check(axes.ptr())) throw py::type_error("`cuts[" + text(i) + "]` must be a tuple");
            py::list pairs;
            for (const py::handle axis : py::reinterpret_borrow<py::tuple>(axes)) {
                if (!PyTuple_Check(axis.ptr()) || PyTuple_GET_SIZE(axis.ptr()) != 2) {
                    throw py::type_error("`cuts[" + text(i) + "]` must hold pairs (axis, vector)");
                }
                const std::int64_t vector = read_integer(PyTuple_GET_ITEM(axis.ptr(), 1), {"cuts", i});
                if (vector < 0 || static_cast<std::size_t>(vector) >= keeps.size()) {
                    throw py::value_error("`cuts[" + text(i) + "]` has vector " + text(vector) +
                                          ", which must lie in [0, " + text(keeps.size()) + ")");
                }
                const py::handle keep = keeps[static_cast<std::size_t>(vector)];
                if (!keep.is_none()) pairs.append(py::make_tuple(py::handle(PyTuple_GET_ITEM(axis.ptr(), 0)), keep));
            }
            if (pairs.empty()) continue;
            number_of_[i] = py::int_(patterns_.size());
            patterns_.append(py::tuple(pairs));
        }
    }

    [[nodiscard]] const py::list& all() const noexcept { return patterns_; }
    [[nodiscard]] std::size_t num_cuts() const noexcept { return number_of_.size(); }

    /// The number of a cut's pattern; null if the cut removes nothing.
    [[nodiscard]] const py::object& number_of(std::size_t cut) const noexcept { return number_of_[cut]; }

private:
    py::list patterns_;
    std::vector<py::object> number_of_;
};

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
            const auto gradient =
                py::reinterpret_steal<py::object>(PyObject_GetAttr(py::handle(tensors_[i]).ptr(), name.ptr()));
            if (!gradient) throw py::error_already_set();
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

/// The tensors and integers of modules that a step changes.
class Plan {
public:
    Plan(const CutPatterns& patterns, const IndexArray& starts) : patterns_(patterns), starts_(starts) {}

    /// Adds the tensors of a module that are cut. A tensor that several modules share is added once.
    void add_tensors(const py::list& tensors, const py::list& cut_of) {
        check_length(cut_of.size(), tensors.size(), "cut_of");
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const py::object& number = patterns_.number_of(number_at(cut_of, i, patterns_.num_cuts(), "cut_of"));
            const py::handle tensor = tensors[i];
            if (!number || !added_.insert(tensor.ptr()).second) continue;
            tensors_.append(tensor);
            pattern_of_.append(number);
        }
    }

    /// Adds the integers of a module that change. `values` are (attributes, name, vector, multiplier, divisor).
    void add_entries(const py::list& values) {
        const std::int64_t num_vectors = starts_.size() - 1;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const py::tuple value = tuple_at(values, i, 5, "values");
            const ArgumentName name{"values", i};
            const std::int64_t vector = read_integer(value[2], name);
            const std::int64_t multiplier = read_integer(value[3], name);
            const std::int64_t divisor = read_integer(value[4], name);
            constexpr std::int64_t largest = std::int64_t{1} << 31U;  // a vector's length times this fits 64 bits
            if (!PyDict_Check(value[0].ptr()) || vector < 0 || vector >= num_vectors || multiplier < 0 ||
                multiplier > largest || divisor < 1) {
                throw py::value_error("`" + name.text() +
                                      "` must be (dictionary, name, vector, multiplier in [0, 2^31], divisor >= 1)");
            }
            const std::int64_t length = starts_.at(vector + 1) - starts_.at(vector);
            const py::int_ present(length * multiplier / divisor);
            const auto before =
                py::reinterpret_borrow<py::object>(PyDict_GetItemWithError(value[0].ptr(), value[1].ptr()));
            if (!before) {
                if (PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_KeyError, value[1].ptr());
                throw py::error_already_set();
            }
            const int differs = PyObject_RichCompareBool(before.ptr(), present.ptr(), Py_NE);
            if (differs < 0) throw py::error_already_set();
            if (differs != 0) entries_.append(py::make_tuple(value[0], value[1], present));
        }
    }

    py::list& tensors() noexcept { return tensors_; }
    py::list& pattern_of() noexcept { return pattern_of_; }
    [[nodiscard]] const py::list& entries() const noexcept { return entries_; }

private:
    const CutPatterns& patterns_;
    const IndexArray& starts_;
    std::unordered_set<PyObject*> added_;
    py::list tensors_;
    py::list pattern_of_;
    py::list entries_;
};

py::list list_in(const py::tuple& tuple, std::size_t index) {
    const py::handle entry = PyTuple_GET_ITEM(tuple.ptr(), static_cast<Py_ssize_t>(index));
    if (!PyList_Check(entry.ptr())) throw py::type_error("`modules` must hold tuples of lists");
    return py::reinterpret_borrow<py::list>(entry);
}

}  // namespace

py::object plan_cuts(const py::tuple& cuts, const py::list& keeps, const IndexArray& starts, const py::list& modules,
                     const py::list& states) {
    if (starts.ndim() != 1 || starts.size() < 1)
        throw py::value_error("`starts` must have one dimension and at least one entry");
    const NoCollection no_collection;  // a collection may run Python code that changes the states
    const CutPatterns patterns(cuts, keeps);
    Plan plan(patterns, starts);
    std::size_t num_in_first = 0;
    for (std::size_t i = 0; i < modules.size(); ++i) {
        const py::tuple module = tuple_at(modules, i, 3, "modules");
        plan.add_tensors(list_in(module, 0), list_in(module, 1));
        if (i == 0) num_in_first = plan.tensors().size();
        plan.add_entries(list_in(module, 2));
    }
    const std::size_t num_owned = plan.tensors().size();
    Dependents dependents(plan.tensors(), plan.pattern_of());
    dependents.add_gradients();
    for (std::size_t i = 0; i < states.size(); ++i) {
        if (!PyDict_Check(py::handle(states[i]).ptr())) {
            throw py::type_error("`states[" + text(i) + "]` must be a dictionary");
        }
        dependents.add_states(py::reinterpret_borrow<py::dict>(states[i]), i);
    }
    return as_namespace(py::dict("patterns"_a = patterns.all(), "tensors"_a = plan.tensors(),
                                 "pattern_of"_a = plan.pattern_of(), "num_owned"_a = num_owned,
                                 "num_of_first"_a = num_in_first, "entries"_a = plan.entries(),
                                 "others"_a = dependents.others()));
}

}  // namespace gsprune
