#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <vector>

namespace gsprune {

/// What an exchange calls of torch, handed over once by Python.
void bind_exchange(const pybind11::object& set, const pybind11::object& increment_version);

/// Gives tensors other storage and dictionaries other values: all of them, or none.
///
/// It is one call for the interpreter, so no signal is handled between its changes. What it replaces stays alive as
/// long as it does; unless `keep` was called, its end takes everything back.
class Exchange {
public:
    /// Looks up what will be replaced; changes nothing. `entries` are (dictionary, key, value).
    Exchange(const pybind11::list& tensors, const pybind11::list& entries);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    /// Every tensor takes over storage, sizes and strides of its replacement, every entry its value. The caller has
    /// switched gradients off.
    void install(const pybind11::list& replacements);

    void keep() noexcept { is_kept_ = true; }

private:
    void give(std::size_t index, pybind11::handle replacement) const;
    void set_entries();
    void take_back() noexcept;

    pybind11::list tensors_;
    pybind11::list entries_;
    std::vector<pybind11::object> befores_;        // of the tensors: others on their present storage
    std::vector<pybind11::object> entry_befores_;  // null: there was none
    std::vector<bool> by_set_;
    std::size_t num_given_ = 0;  // tensors that may have changed
    std::size_t num_set_ = 0;    // entries that may have changed
    bool is_kept_ = false;
};

}  // namespace gsprune
