#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <functional>
#include <unordered_map>
#include <vector>

#include "tensor/views.hpp"

namespace gsprune {

/// Lets tensors take over what their replacements stand on, and gives dictionaries other values: all, or none.
///
/// It is one call for the interpreter, so no signal is handled between its changes, as long as garbage is not
/// collected. Threads may see a part of them: torch lets the GIL go in some of its own calls.
class Exchange {
public:
    using ViewOf = std::function<const View&(std::size_t index)>;

    /// Looks up what will be replaced, and keeps the tensors' memory until the end; changes nothing. This may run
    /// Python code (of subclasses, of modes), which may do anything to the tensors: addresses are to be read
    /// afterwards. The first `num_owned` tensors, and what requires a gradient, may be known to graphs. `entries` are
    /// (dictionary, key, value).
    Exchange(const pybind11::list& tensors, std::size_t num_owned, const pybind11::list& entries);
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    /// Every tensor takes over storage, sizes and strides of its replacement, every entry its value; where that fails,
    /// everything is taken back. `view_of` a tensor's index says how it lies in memory before that. The caller has
    /// switched gradients off.
    void install(const pybind11::list& replacements, const ViewOf& view_of);

    [[nodiscard]] const pybind11::list& tensors() const noexcept { return tensors_; }

private:
    void change();
    void give(std::size_t index) const;
    void give_back(std::size_t index) const;
    void set_entries();
    void take_back() noexcept;

    pybind11::list tensors_;
    pybind11::list entries_;
    std::vector<pybind11::object> storages_;  // of the tensors, before; null where one has none
    std::vector<pybind11::object> befores_;   // of the entries; null: there was none
    std::vector<bool> by_set_;
    pybind11::list without_versions_;  // tensors whose version does not rise by itself
    pybind11::list replacements_;
    const ViewOf* view_of_ = nullptr;
    std::unordered_map<std::size_t, pybind11::object>
        offsets_;                // of tensors without elements, whose addresses are null
    std::size_t num_given_ = 0;  // tensors that may have changed
    std::size_t num_set_ = 0;    // entries that may have changed
};

}  // namespace gsprune
