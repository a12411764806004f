#include "slice_bindings.hpp"

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "exchange.hpp"
#include "no_collection.hpp"
#include "parallel.hpp"
#include "slice.hpp"
#include "slice_arguments.hpp"
#include "torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

/// The slices of one call: checked, then allocated, then filled while torch learns of them.
class Slices {
public:
    Slices(const py::list& tensors, const py::list& patterns, const py::list& pattern_of, int num_threads)
        : tensors_(tensors),
          patterns_(patterns),
          num_threads_(num_threads),
          jobs_(tensors.size()),
          types_(tensors.size()),
          made_(tensors.size()) {
        check_length(pattern_of.size(), tensors.size(), "pattern_of");
        std::int64_t num_bytes = 0;
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            SliceJob& job = jobs_[i];
            read_slice_job(job, types_[i], tensors[i], pattern_of[i], i, patterns_, dlpack::cpu);
            const std::int64_t before = num_bytes;
            num_bytes += job.target.numel() * job.target.itemsize;
            if (before < min_parallel_bytes && num_bytes >= min_parallel_bytes) expect_tasks(num_threads);
        }
    }

    /// Memory for the slices: the largest first, so that the blocks of the pool serve as many tensors as they can.
    void allocate() {
        new_.reserve(jobs_.size());
        order_ = slice_order(jobs_);
        for (const std::size_t i : order_) new_.emplace_back(jobs_[i].target, types_[i], tensors_[i]);
    }

    [[nodiscard]] SliceRun begin(Isa isa) const { return SliceRun(jobs_, order_, patterns_.all(), isa, num_threads_); }

    /// The tensors, which live as long as this object at least: other threads may be filling them.
    const py::list& make() {
        for (std::size_t i = 0; i < order_.size(); ++i) made_[order_[i]] = new_[i].hand_over();
        return made_;
    }

    [[nodiscard]] const std::vector<SliceJob>& jobs() const noexcept { return jobs_; }

private:
    py::list tensors_;
    Patterns patterns_;
    int num_threads_;
    std::vector<SliceJob> jobs_;
    std::vector<dlpack::DataType> types_;
    std::vector<std::size_t> order_;
    std::vector<NewTensor> new_;  // in that order
    py::list made_;
};

py::list slice_tensors(const py::list& tensors, const py::list& patterns, const py::list& pattern_of, int num_threads,
                       const std::string& isa) {
    check_threads(num_threads);
    const Isa known_isa = parse_isa(isa);
    Slices slices(tensors, patterns, pattern_of, num_threads);
    slices.allocate();
    SliceRun run = slices.begin(known_isa);
    const py::list made = slices.make();
    {
        const py::gil_scoped_release unlocked;
        run.finish();
    }
    return made;
}

/// Slices are filled before anybody can see them. From the reading of addresses until then no Python code runs and the
/// GIL is held, so that nobody takes a tensor's memory away.
void rewrite_tensors(const py::list& tensors, const py::list& patterns, const py::list& pattern_of,
                     std::size_t num_owned, const py::list& entries, int num_threads, const std::string& isa) {
    check_threads(num_threads);
    const Isa known_isa = parse_isa(isa);
    const NoCollection no_collection;
    Exchange exchange(tensors, num_owned, entries);
    Slices slices(tensors, patterns, pattern_of, num_threads);
    slices.allocate();
    SliceRun run = slices.begin(known_isa);
    const py::list& made = slices.make();
    run.finish();
    exchange.install(made, [&slices](std::size_t i) -> const View& { return slices.jobs()[i].source; });
}

/// Collects the gradients and the optimizer states that are sliced as their parameters are.
class Followers {
public:
    explicit Followers(const py::list& parameters) : parameters_(parameters) {
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            shapes_.push_back(peek_shape(parameters[i]));
            index_of_.emplace(py::handle(parameters[i]).ptr(), i);
        }
    }

    void add_gradients() {
        const py::str name("grad");
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const auto gradient =
                py::reinterpret_steal<py::object>(PyObject_GetAttr(py::handle(parameters_[i]).ptr(), name.ptr()));
            if (!gradient) throw py::error_already_set();
            if (gradient.is_none()) continue;
            if (has_shape_of(i, peek_shape(gradient))) {
                add(gradient, i);
            } else {
                rest_.append(py::make_tuple(i, py::none(), name, gradient));
            }
        }
    }

    /// `states` is parameter -> {key: value}; `which` optimizer's.
    void add_states(const py::dict& states, std::size_t which) {
        PyObject* parameter = nullptr;
        PyObject* state = nullptr;
        Py_ssize_t position = 0;
        while (PyDict_Next(states.ptr(), &position, &parameter, &state) != 0) {
            const auto found = index_of_.find(parameter);
            if (found == index_of_.end()) continue;
            if (PyDict_Check(state)) {
                add_state(state, found->second, which);
            } else {
                rest_.append(py::make_tuple(found->second, which, py::none(), py::handle(state)));
            }
        }
    }

    [[nodiscard]] py::tuple result() const { return py::make_tuple(tensors_, owners_, rest_); }

private:
    void add_state(PyObject* state, std::size_t owner, std::size_t which) {
        PyObject* key = nullptr;
        PyObject* value = nullptr;
        Py_ssize_t position = 0;
        while (PyDict_Next(state, &position, &key, &value) != 0) {
            if (value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value)) continue;
            const std::optional<View> shape = peek_shape(value);
            if (has_shape_of(owner, shape)) {
                add(value, owner);
            } else if (!shape || shape->numel() != 1) {
                rest_.append(py::make_tuple(owner, which, py::handle(key), py::handle(value)));
            }
        }
    }

    [[nodiscard]] bool has_shape_of(std::size_t owner, const std::optional<View>& shape) const noexcept {
        const std::optional<View>& wanted = shapes_[owner];
        return wanted && shape && wanted->ndim == shape->ndim && wanted->shape == shape->shape;
    }

    void add(py::handle tensor, std::size_t owner) {
        tensors_.append(tensor);
        owners_.append(owner);
    }

    py::list parameters_;
    std::vector<std::optional<View>> shapes_;
    std::unordered_map<PyObject*, std::size_t> index_of_;
    py::list tensors_;
    py::list owners_;
    py::list rest_;
};

py::tuple find_followers(const py::list& parameters, const py::list& states) {
    Followers followers(parameters);
    followers.add_gradients();
    for (std::size_t i = 0; i < states.size(); ++i) {
        if (!PyDict_Check(py::handle(states[i]).ptr())) {
            throw py::type_error("`states[" + text(i) + "]` must be a dictionary");
        }
        followers.add_states(py::reinterpret_borrow<py::dict>(states[i]), i);
    }
    return followers.result();
}

}  // namespace

void bind_slices(py::module_& module) {
    module.def("slice", &slice_tensors, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
               py::arg("num_threads"), py::arg("isa"), "The kept part of every tensor in new tensors.");
    module.def(
        "rewrite", &rewrite_tensors, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
        py::arg("num_owned"), py::arg("entries"), py::arg("num_threads"), py::arg("isa"),
        "Every tensor becomes its slice, every (dictionary, key, value) is set: all, or where it fails nothing.");
    module.def(
        "find_followers", &find_followers, py::arg("parameters"), py::arg("states"),
        "Gradients and states (optimizer by optimizer: parameter -> state) of their parameter's shape, the index"
        " of the parameter of each, and (parameter, optimizer or None, key, value) of what is neither like it nor"
        " a scalar.");
}

}  // namespace gsprune
