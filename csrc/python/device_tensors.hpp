#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <vector>

#include "tensor/dlpack.hpp"
#include "python/torch_tensors.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// A request for a tensor with the shape and strides of `view`, whose data is set, and the dtype of `like`, whose
/// DLPack type is `type`. Tensors of one kind mostly have one shape and are replaced together.
struct WantedTensor {
    View* view;
    dlpack::DataType type;
    pybind11::handle like;
    std::size_t kind;
};

/// Makes tensors in torch's memory on any device. Short tensors share a block, but each has its own storage.
///
/// Torch takes 2.5 to 6 us to allocate a CUDA tensor and 1 us to free it (docs/concepts/gpu.md), longer than the rest
/// of a step's work on it. A block is freed with the last of its tensors. So tensors of one kind, which later steps
/// replace together, share a block. `device` is a `torch.device`.
std::vector<NewTensor> new_device_tensors(const std::vector<WantedTensor>& wanted, std::size_t num_kinds,
                                          const pybind11::object& device);

}  // namespace gsprune
