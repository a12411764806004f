#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <vector>

#include "dlpack.hpp"
#include "torch_tensors.hpp"
#include "views.hpp"

namespace gsprune {

/// Makes tensors in torch's memory on any device; short ones share a block of it, but each has a storage of its own.
///
/// For CUDA tensors torch takes 3.5 us to allocate each, and 1 us to free it (docs/gpu.md): more than all else that a
/// step does with them. A block comes back to torch with the last of its tensors, which in a step that replaces all
/// tensors of a network go together.
class TensorMaker {
public:
    /// `tensors` outlives this object; those that are made lie where the first of them does.
    explicit TensorMaker(const pybind11::list& tensors);

    /// Another tensor, of the shape and strides of `view` and the dtype of `like`; `type` is what `read_tensor` found
    /// of `like`, and tensors of one kind have mostly one shape. `view` gets its data by `make`.
    void add(View& view, const dlpack::DataType& type, pybind11::handle like, std::size_t kind);

    /// All of them, unfilled; to be called once.
    pybind11::list make();

private:
    struct Wanted {
        View* view;
        dlpack::DataType type;
        pybind11::handle like;
        std::size_t kind;
    };

    void make_block(const std::vector<std::size_t>& shared, std::size_t length, pybind11::list& made);

    const pybind11::list& tensors_;
    std::size_t num_kinds_ = 1;
    std::vector<Wanted> wanted_;
};

}  // namespace gsprune
