#include "python/exchange.hpp"

#include <stdexcept>
#include <string>

#include "python/torch.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

py::object attribute(py::handle object, const py::str& name) {
    PyObject* value = PyObject_GetAttr(object.ptr(), name.ptr());
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
}

void set_attribute(py::handle object, const py::str& name, py::handle value) {
    if (PyObject_SetAttr(object.ptr(), name.ptr(), value.ptr()) != 0) throw py::error_already_set();
}

template <class... Arguments>
py::object call(const py::object& function, Arguments... arguments) {
    PyObject* all[] = {arguments.ptr()...};
    PyObject* result = PyObject_Vectorcall(function.ptr(), all, sizeof...(arguments), nullptr);
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

/// Null where there is none: whoever reads the object says what it should be.
py::object storage_of(py::handle object) {
    try {
        return call(torch().untyped_storage, object);
    } catch (const py::error_already_set& error) {
        const bool is_refusal =
            error.matches(PyExc_TypeError) || error.matches(PyExc_AttributeError) || error.matches(PyExc_RuntimeError);
        if (!is_refusal) throw;  // an interrupt, no memory
        return {};
    }
}

struct Entry {
    py::handle dictionary;
    py::handle key;
    py::handle value;
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

Exchange::Exchange(const py::list& tensors, std::size_t num_owned, const py::list& entries)
    : tensors_(tensors), entries_(entries) {
    storages_.reserve(tensors.size());
    by_set_.reserve(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const py::handle tensor = tensors[i];
        storages_.push_back(storage_of(tensor));
        by_set_.push_back(i < num_owned || !storages_[i] || attribute(tensor, torch().requires_grad).ptr() == Py_True);
        if (!by_set_.back()) without_versions_.append(tensor);
    }
    befores_.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const Entry entry = entry_at(entries, i);
        PyObject* before = PyDict_GetItemWithError(entry.dictionary.ptr(), entry.key.ptr());
        if (before == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
        befores_.push_back(py::reinterpret_borrow<py::object>(before));
    }
}

void Exchange::install(const py::list& replacements, const ViewOf& view_of) {
    replacements_ = replacements;
    view_of_ = &view_of;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        if (!storages_[i]) throw std::runtime_error("torch gave no storage of `tensors[" + std::to_string(i) + "]`");
        if (view_of(i).data == nullptr) offsets_.emplace(i, tensors_[i].attr("storage_offset")());
    }
    try {
        change();
    } catch (...) {
        take_back();
        throw;
    }
}

/// The versions come last: raising them is a call of Python, in which signals are handled.
void Exchange::change() {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        num_given_ = i + 1;
        give(i);
    }
    set_entries();
    if (!without_versions_.empty()) torch().increment_version(without_versions_);
}

/// `set_` where autograd may hold an accumulator of the tensor's, which `.data =` would leave with the old shape: the
/// next backward would fail. The latter takes a quarter of the time; it does not raise the tensor's version.
void Exchange::give(std::size_t index) const {
    if (by_set_[index]) {
        call(torch().set, tensors_[index], replacements_[index]);
    } else {
        set_attribute(tensors_[index], torch().data, replacements_[index]);
    }
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

/// The replacement takes over what the tensor stood on, and hands it on.
void Exchange::give_back(std::size_t index) const {
    const View& before = (*view_of_)(index);
    const py::object& storage = storages_[index];
    py::object offset;
    if (const auto known = offsets_.find(index); known != offsets_.end()) {
        offset = known->second;
    } else {
        const auto begin = storage.attr("data_ptr")().cast<std::uintptr_t>();
        const auto data = reinterpret_cast<std::uintptr_t>(before.data);
        offset = py::int_((data - begin) / static_cast<std::uintptr_t>(before.itemsize));
    }
    torch().set(replacements_[index], storage, offset, as_tuple(before.shape, before.ndim),
                as_tuple(before.strides, before.ndim));
    give(index);
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
    for (std::size_t i = num_given_; i-- > 0;) {
        for (bool is_done = false; !is_done;) {
            try {
                give_back(i);
                is_done = true;
            } catch (py::error_already_set& error) {
                // An interrupt that Python code of the tensor's (a dispatch mode, a subclass) heard: once more.
                is_done = !error.matches(PyExc_KeyboardInterrupt);
                error.discard_as_unraisable("gsprune, while taking a rewrite back");
            } catch (const std::exception&) {
                is_done = true;
            }
        }
    }
}

}  // namespace gsprune
