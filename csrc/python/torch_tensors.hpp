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

/// A tensor of the caller; valid while the caller holds it.
struct TorchTensor {
    View view;
    dlpack::DataType type{};     // as torch says it; unset where there is no exchange table
    std::optional<DType> dtype;  // empty: not one of the dtypes that can be summed
};

/// Throws ValueError naming `argument` unless `object` is a strided tensor with whole-byte elements on that device.
TorchTensor read_tensor(pybind11::handle object, const ArgumentName& argument,
                        const dlpack::Device& device = dlpack::cpu);

/// Where `object` is. Throws ValueError naming `argument` where that is neither the CPU nor a CUDA device.
dlpack::Device device_of(pybind11::handle object, const ArgumentName& argument);

/// The shape of `object` where it is a strided tensor that can be read quickly, else empty; never throws. A subclass
/// may run Python code.
std::optional<View> peek_shape(pybind11::handle object) noexcept;

/// The first `ndim` of a view's sizes or strides, as torch takes them.
pybind11::tuple as_tuple(const std::array<std::int64_t, max_dims>& numbers, int ndim);

/// Whether torch has an exchange table, by which it takes tensors over.
bool can_import() noexcept;

/// A tensor on memory that is not torch's, which it gives back by `managed.deleter`; `can_import` must hold.
pybind11::object import_tensor(dlpack::ManagedTensor& managed);

/// Where a tensor is, as the exchange table has it; `can_import` must hold.
dlpack::Device raw_device_of(pybind11::handle object);

/// Makes tensors in torch's own memory.
class TorchMaker {
public:
    /// On that device (a `torch.device`). Tensors are of some kinds, each of which has mostly one shape.
    explicit TorchMaker(pybind11::handle device, std::size_t num_kinds = 1);

    /// A tensor of the shape and strides of `view`, whose data it sets, and the dtype of `like`.
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

/// A new tensor with storage of its own: its memory is there at once, torch learns of it later.
///
/// So threads can fill it while torch's objects are made. The memory stays where it is until a tensor owns it, or this
/// object ends.
class NewTensor {
public:
    /// Of the shape and strides of `view`, whose data it sets, and the dtype of `like`; `type` is what `read_tensor`
    /// found of `like`. Throws std::bad_alloc.
    NewTensor(View& view, const dlpack::DataType& type, pybind11::handle like);
    ~NewTensor();
    NewTensor(NewTensor&& other) noexcept;
    NewTensor& operator=(NewTensor&&) = delete;

    /// The tensor; to be called once.
    pybind11::object hand_over();

private:
    struct Told;
    Told* told_ = nullptr;   // at the start of the block; null where torch has made the tensor
    pybind11::object made_;  // by torch
};

}  // namespace gsprune
