#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "tensor/dlpack.hpp"
#include "python/torch_tensors.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// Makes tensors in torch's memory on any device; short ones share a block of it, but each has a storage of its own.
///
/// For CUDA tensors torch takes 2.5 to 6 us to allocate each, and 1 us to free it (docs/concepts/gpu.md): more than all
/// else that a step does with them. A block comes back to torch with the last of its tensors: those of one kind stand
/// together, which the next step that cuts one of them replaces together. Memory is there before the tensors are, so
/// that it can be filled meanwhile.
class TensorMaker {
public:
    /// On that device (a `torch.device`). Tensors of a kind have mostly one shape, and go together.
    TensorMaker(const pybind11::object& device, std::size_t num_kinds);
    ~TensorMaker();
    TensorMaker(const TensorMaker&) = delete;
    TensorMaker& operator=(const TensorMaker&) = delete;

    /// Another tensor, of the shape and strides of `view` and the dtype of `like`; `type` is what `read_tensor` found
    /// of `like`. Both outlive `allocate`.
    void add(View& view, const dlpack::DataType& type, pybind11::handle like, std::size_t kind);

    /// Every view gets its data.
    void allocate();

    /// All tensors, to be called once.
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
