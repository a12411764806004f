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

/// The patterns of a call; an array that several of them use is checked and resolved once. Throws ValueError.
class Patterns {
public:
    explicit Patterns(const pybind11::list& patterns);

    [[nodiscard]] const std::vector<SlicePattern>& all() const noexcept { return patterns_; }

private:
    const Keep* resolve(pybind11::handle positions, std::size_t index);

    std::deque<Keep> keeps_;  // a deque: growing moves nothing
    std::unordered_map<PyObject*, const Keep*> keep_of_;
    std::vector<SlicePattern> patterns_;
};

/// What `tensors[index]`, which must be on `device`, becomes by the pattern of that number; without memory for it.
///
/// `type` is set to the tensor's dtype. Throws ValueError.
void read_slice_job(SliceJob& job, dlpack::DataType& type, pybind11::handle tensor, pybind11::handle pattern,
                    std::size_t index, const Patterns& patterns, const dlpack::Device& device);

}  // namespace gsprune
