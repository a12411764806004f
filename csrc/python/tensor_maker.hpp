#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "tensor/dlpack.hpp"
#include "python/torch_tensors.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// Makes tensors in torch's memory on any device. Short tensors share a block, but each has its own storage.
///
/// Torch takes 2.5 to 6 us to allocate a CUDA tensor and 1 us to free it (docs/concepts/gpu.md), longer than the rest
/// of a step's work on it. A block is freed with the last of its tensors. So tensors of one kind, which later steps
/// replace together, share a block. The memory exists before the tensor objects, so it can be filled while they are
/// made.
class TensorMaker {
public:
    /// `device` is a `torch.device`. Tensors of one kind mostly have one shape and are replaced together.
    TensorMaker(const pybind11::object& device, std::size_t num_kinds);
    ~TensorMaker();
    TensorMaker(const TensorMaker&) = delete;
    TensorMaker& operator=(const TensorMaker&) = delete;

    /// Requests a tensor with the shape and strides of `view` and the dtype of `like`, whose DLPack type is `type`.
    /// `view` and `like` must live until `allocate` returns.
    void add(View& view, const dlpack::DataType& type, pybind11::handle like, std::size_t kind);

    /// Sets the data of every view.
    void allocate();

    /// Returns all tensors; to be called once.
    pybind11::list make();

private:
    class Block;
    struct Release {
        void operator()(Block* block) const noexcept;
    };
    struct Wanted {
        View* view;
        dlpack::DataType type;
        pybind11::handle like;
        std::size_t kind;
    };

    /// Tensors of one block.
    struct Shared {
        std::vector<std::size_t> indices;
        std::size_t num_bytes = 0;

        void add(std::size_t index, std::size_t length) {
            indices.push_back(index);
            num_bytes += length;
        }
    };

    void allocate_alone(std::size_t index);
    void allocate_shared(const Shared& shared);
    void allocate_block(const Shared& shared);

    std::size_t num_kinds_;
    TorchMaker alone_;
    TorchMaker blocks_memory_;
    std::vector<Wanted> wanted_;
    pybind11::list made_;
    std::vector<std::unique_ptr<Block, Release>> blocks_;
};

}  // namespace gsprune
