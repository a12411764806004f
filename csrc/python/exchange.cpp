#include "python/exchange.hpp"

#include <stdexcept>
#include <string>

#include "python/torch.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

template <class... Arguments>
py::object call(const py::object& function, Arguments... arguments) {
    PyObject* all[] = {arguments.ptr()...};
    PyObject* result = PyObject_Vectorcall(function.ptr(), all, sizeof...(arguments), nullptr);
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

/// The storage of a tensor, null if it has none; the later `read_tensor` then raises the error.
py::object storage_of(py::handle object) {
    try {
        return call(torch().untyped_storage, object);
    } catch (const py::error_already_set& error) {
        const bool is_refusal =
            error.matches(PyExc_TypeError) || error.matches(PyExc_AttributeError) || error.matches(PyExc_RuntimeError);
        if (!is_refusal) throw;  // an interrupt, or out of memory
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
    uses_set_.reserve(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const py::handle tensor = tensors[i];
        storages_.push_back(storage_of(tensor));
        uses_set_.push_back(i < num_owned || !storages_[i] ||
                            py::object(tensor.attr(torch().requires_grad)).ptr() == Py_True);
        if (!uses_set_.back()) without_versions_.append(tensor);
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
        if (!storages_[i]) throw std::runtime_error("torch has no storage for `tensors[" + std::to_string(i) + "]`");
        if (view_of(i).data == nullptr) offsets_.emplace(i, tensors_[i].attr("storage_offset")());
    }
    try {
        change();
    } catch (...) {
        roll_back();
        throw;
    }
}

/// Versions are incremented last, because Python handles signals in this call.
void Exchange::change() {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        num_replaced_ = i + 1;
        replace(i);
    }
    set_entries();
    if (!without_versions_.empty()) torch().increment_version(without_versions_);
}

/// Assigning `.data` takes a quarter of the time of `set_`, but does not increment the tensor's version. It also leaves
/// the old shape in autograd's accumulator of the tensor, so that the next backward would fail.
void Exchange::replace(std::size_t index) const {
    if (uses_set_[index]) {
        call(torch().set, tensors_[index], replacements_[index]);
    } else {
        tensors_[index].attr(torch().data) = replacements_[index];
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

/// Gives the replacement the tensor's former storage, then replaces the tensor again.
void Exchange::restore(std::size_t index) const {
    const View& before = (*view_of_)(index);
    const py::object& storage = storages_[index];
    py::object offset;
    if (const auto found = offsets_.find(index); found != offsets_.end()) {
        offset = found->second;
    } else {
        const auto begin = storage.attr("data_ptr")().cast<std::uintptr_t>();
        const auto data = reinterpret_cast<std::uintptr_t>(before.data);
        offset = py::int_((data - begin) / static_cast<std::uintptr_t>(before.itemsize));
    }
    torch().set(replacements_[index], storage, offset, as_tuple(before.shape, before.ndim),
                as_tuple(before.strides, before.ndim));
    replace(index);
}

void Exchange::roll_back() noexcept {
    for (std::size_t i = num_set_; i-- > 0;) {
        const Entry entry = entry_at(entries_, i);
        const py::object& before = befores_[i];
        const int failed = before.ptr() != nullptr
                               ? PyDict_SetItem(entry.dictionary.ptr(), entry.key.ptr(), before.ptr())
                               : PyDict_DelItem(entry.dictionary.ptr(), entry.key.ptr());
        if (failed != 0) PyErr_Clear();  // the entry was not set yet
    }
    for (std::size_t i = num_replaced_; i-- > 0;) {
        for (bool is_done = false; !is_done;) {
            try {
                restore(i);
                is_done = true;
            } catch (py::error_already_set& error) {
                // Python code of the tensor (a dispatch mode, a subclass) may raise an interrupt: try again.
                is_done = !error.matches(PyExc_KeyboardInterrupt);
                error.discard_as_unraisable("gsprune, while rolling back a rewrite");
            } catch (const std::exception&) {
                is_done = true;
            }
        }
    }
}

}  // namespace gsprune
