#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <functional>
#include <unordered_map>
#include <vector>

#include "tensor/views.hpp"

namespace gsprune {

/// A transaction that replaces the storage of tensors and sets dictionary entries.
///
/// The interpreter sees one call, so no signal is handled between the changes unless garbage is collected. Other
/// threads may see a part of the changes, because some torch calls release the GIL.
class Exchange {
public:
    using ViewOf = std::function<const View&(std::size_t index)>;

    /// Looks up the old storages and entries, and keeps the storages alive; changes nothing. `entries` are (dictionary,
    /// key, value).
    ///
    /// Autograd graphs may refer to the first `num_owned` tensors and to those that require a gradient. Python code of
    /// subclasses and modes may run here, so callers must read addresses afterwards.
    Exchange(const pybind11::list& tensors, std::size_t num_owned, const pybind11::list& entries);
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    /// Gives every tensor the storage, sizes and strides of its replacement, then sets the entries; rolls back on
    /// failure. `view_of` returns the old view of a tensor. Gradients must be disabled.
    void install(const pybind11::list& replacements, const ViewOf& view_of);

    [[nodiscard]] const pybind11::list& tensors() const noexcept { return tensors_; }

private:
    void change();
    void replace(std::size_t index) const;
    void restore(std::size_t index) const;
    void set_entries();
    void roll_back() noexcept;

    pybind11::list tensors_;
    pybind11::list entries_;
    std::vector<pybind11::object> storages_;  // old storages of the tensors; null: none
    std::vector<pybind11::object> befores_;   // old values of the entries; null: no entry
    std::vector<bool> uses_set_;              // true: `set_`, false: `.data =`
    pybind11::list without_versions_;         // tensors whose version must be incremented
    pybind11::list replacements_;
    const ViewOf* view_of_ = nullptr;
    // Storage offsets of tensors with a null address (no elements). Those of other tensors follow from the address.
    std::unordered_map<std::size_t, pybind11::object> offsets_;
    std::size_t num_replaced_ = 0;  // tensors that may have changed
    std::size_t num_set_ = 0;       // entries that may have changed
};

}  // namespace gsprune
