#include "exchange.hpp"

#include <string>

namespace py = pybind11;

namespace gsprune {

namespace {

struct Torch {
    py::object set;                // torch.Tensor.set_
    py::object increment_version;  // of an iterable of tensors
    py::str data{"data"};
    py::str requires_grad{"requires_grad"};
};

/// Never destroyed: its references must not be dropped after the interpreter has gone.
Torch& torch() {
    static auto* const the_torch = new Torch;
    return *the_torch;
}

py::object attribute(py::handle object, const py::str& name) {
    PyObject* value = PyObject_GetAttr(object.ptr(), name.ptr());
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

void set_attribute(py::handle object, const py::str& name, py::handle value) {
    if (PyObject_SetAttr(object.ptr(), name.ptr(), value.ptr()) != 0) throw py::error_already_set();
}

struct Entry {
    py::handle dictionary;
    py::handle key;
    py::handle value;
};

/// A collection of garbage may call Python code, in which signals are handled.
class NoCollection {
public:
    NoCollection() noexcept : was_enabled_(PyGC_Disable() != 0) {}
    ~NoCollection() {
        if (was_enabled_) PyGC_Enable();
    }
    NoCollection(const NoCollection&) = delete;
    NoCollection& operator=(const NoCollection&) = delete;

private:
    bool was_enabled_;
};

Entry entry_at(const py::list& entries, std::size_t index) {
    const py::handle entry = entries[index];
    if (!PyTuple_Check(entry.ptr()) || PyTuple_GET_SIZE(entry.ptr()) != 3 ||
        !PyDict_Check(PyTuple_GET_ITEM(entry.ptr(), 0))) {
        throw py::type_error("`entries[" + std::to_string(index) + "]` must be (dictionary, key, value)");
    }
    return {PyTuple_GET_ITEM(entry.ptr(), 0), PyTuple_GET_ITEM(entry.ptr(), 1), PyTuple_GET_ITEM(entry.ptr(), 2)};
}

}  // namespace

void bind_exchange(const py::object& set, const py::object& increment_version) {
    torch().set = set;
    torch().increment_version = increment_version;
}

Exchange::Exchange(const py::list& tensors, const py::list& replacements, std::size_t num_by_set,
                   const py::list& entries)
    : tensors_(tensors), replacements_(replacements), entries_(entries) {
    by_set_.reserve(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        by_set_.push_back(i < num_by_set || attribute(tensors[i], torch().requires_grad).ptr() == Py_True);
        if (!by_set_.back()) without_versions_.append(tensors[i]);
    }
    befores_.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const Entry entry = entry_at(entries, i);
        PyObject* before = PyDict_GetItemWithError(entry.dictionary.ptr(), entry.key.ptr());
        if (before == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
        befores_.push_back(py::reinterpret_borrow<py::object>(before));
    }
}

Exchange::~Exchange() {
    if (!is_kept_) take_back();
}

/// The versions come last: raising them is a call of Python, in which signals are handled.
void Exchange::install() {
    const NoCollection no_collection;
    for (; num_swapped_ < tensors_.size(); ++num_swapped_) swap(num_swapped_);
    set_entries();
    if (!without_versions_.empty()) torch().increment_version(without_versions_);
}

void Exchange::swap(std::size_t index) const {
    const py::handle tensor = tensors_[index];
    const py::handle replacement = replacements_[index];
    const py::object before = attribute(tensor, torch().data);
    try {
        give(index, replacement);
        set_attribute(replacement, torch().data, before);
    } catch (...) {
        give_back(index, before);
        throw;
    }
}

/// `set_` where autograd may hold an accumulator of the tensor's, which `.data =` would leave with the old shape: the
/// next backward would fail. The latter takes a quarter of the time; it does not raise the tensor's version.
void Exchange::give(std::size_t index, py::handle replacement) const {
    const py::handle tensor = tensors_[index];
    if (!by_set_[index]) {
        set_attribute(tensor, torch().data, replacement);
        return;
    }
    PyObject* arguments[] = {tensor.ptr(), replacement.ptr()};
    PyObject* result = PyObject_Vectorcall(torch().set.ptr(), arguments, 2, nullptr);
    if (result == nullptr) throw py::error_already_set();
    Py_DECREF(result);
}

void Exchange::set_entries() {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        const Entry entry = entry_at(entries_, i);
        num_set_ = i + 1;
        if (PyDict_SetItem(entry.dictionary.ptr(), entry.key.ptr(), entry.value.ptr()) != 0) {
            throw py::error_already_set();
        }
    }
}

void Exchange::give_back(std::size_t index, py::handle before) const noexcept {
    for (;;) {
        try {
            give(index, before);
            return;
        } catch (py::error_already_set& error) {
            // An interrupt that Python code of the tensor's (a dispatch mode, a subclass) heard: once more.
            const bool is_interrupt = error.matches(PyExc_KeyboardInterrupt);
            error.discard_as_unraisable("gsprune, while taking a rewrite back");
            if (!is_interrupt) return;
        }
    }
}

void Exchange::take_back() noexcept {
    for (std::size_t i = num_set_; i-- > 0;) {
        const Entry entry = entry_at(entries_, i);
        const py::object& before = befores_[i];
        const int failed = before.ptr() != nullptr
                               ? PyDict_SetItem(entry.dictionary.ptr(), entry.key.ptr(), before.ptr())
                               : PyDict_DelItem(entry.dictionary.ptr(), entry.key.ptr());
        if (failed != 0) PyErr_Clear();  // it was not there yet
    }
    for (std::size_t i = num_swapped_; i-- > 0;) give_back(i, replacements_[i]);
}

}  // namespace gsprune
