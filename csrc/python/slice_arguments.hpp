#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "tensor/dlpack.hpp"
#include "slice/slice.hpp"

namespace gsprune {

/// The patterns of a call. An array in several patterns is checked and resolved once. Throws ValueError.
class Patterns {
public:
    explicit Patterns(const pybind11::list& patterns);

    [[nodiscard]] const std::vector<SlicePattern>& all() const noexcept { return patterns_; }

private:
    const Keep* resolve(pybind11::handle positions, std::size_t index);

    std::deque<Keep> keeps_;  // growing a deque moves no element
    std::unordered_map<PyObject*, const Keep*> keep_of_;
    std::vector<SlicePattern> patterns_;
};

/// Fills `job` for `tensors[index]`, which must be on `device`, but without memory for the target. `type` is set to the
/// tensor's dtype. Throws ValueError.
void read_slice_job(SliceJob& job, dlpack::DataType& type, pybind11::handle tensor, pybind11::handle pattern,
                    std::size_t index, const Patterns& patterns, const dlpack::Device& device);

}  // namespace gsprune
