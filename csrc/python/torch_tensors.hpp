#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "python/arguments.hpp"
#include "tensor/dlpack.hpp"
#include "tensor/dtypes.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// A tensor of the caller, valid while the caller keeps it alive.
struct TorchTensor {
    View view;
    dlpack::DataType type{};     // unset without an exchange table
    std::optional<DType> dtype;  // empty if the dtype cannot be summed
};

/// Reads a strided tensor with whole-byte elements on that device; else throws ValueError with the argument's name.
TorchTensor read_tensor(pybind11::handle object, const ArgumentName& argument,
                        const dlpack::Device& device = dlpack::cpu);

/// The device of `object`. Throws ValueError if it is neither the CPU nor a CUDA device.
dlpack::Device device_of(pybind11::handle object, const ArgumentName& argument);

/// The shape of `object`; empty if it is no strided tensor or torch has no exchange table. Never throws, but may run
/// Python code of a subclass.
std::optional<View> peek_shape(pybind11::handle object) noexcept;

/// The first `ndim` sizes or strides of a view as a Python tuple.
pybind11::tuple as_tuple(const std::array<std::int64_t, max_dims>& numbers, int ndim);

/// True if torch has an exchange table and so can import tensors.
bool can_import() noexcept;

/// A torch tensor on the memory of `managed`, freed by `managed.deleter`. Needs `can_import`.
pybind11::object import_tensor(dlpack::ManagedTensor& managed);

/// The device of a tensor in DLPack's terms. Needs `can_import`.
dlpack::Device raw_device_of(pybind11::handle object);

/// Makes tensors in torch's own memory.
class TorchMaker {
public:
    /// `device` is a `torch.device`. Tensors of one kind mostly have one shape, whose tuples are cached.
    explicit TorchMaker(pybind11::handle device, std::size_t num_kinds = 1);

    /// Makes a tensor with the shape and strides of `view` and the dtype of `like`; sets the data of `view`.
    pybind11::object make(View& view, pybind11::handle like, std::size_t kind = 0);

private:
    struct Kind {
        View view;
        pybind11::object shape;
        pybind11::object strides;
    };

    pybind11::object device_;
    std::vector<Kind> kinds_;
};

/// A new CPU tensor with its own storage. The memory exists before torch's tensor object, so threads can fill it while
/// the objects are made. Until `hand_over`, this object owns the memory.
class NewTensor {
public:
    /// Has the shape and strides of `view`, whose data it sets, and the dtype of `like`, whose DLPack type is `type`.
    /// Throws std::bad_alloc.
    NewTensor(View& view, const dlpack::DataType& type, pybind11::handle like);
    ~NewTensor();
    NewTensor(NewTensor&& other) noexcept;
    NewTensor& operator=(NewTensor&&) = delete;

    /// The tensor; to be called once.
    pybind11::object hand_over();

private:
    struct Export;
    Export* export_ = nullptr;  // the start of the block; null if torch made the tensor
    pybind11::object made_;     // the tensor, if torch made it
};

}  // namespace gsprune
