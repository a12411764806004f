#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
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

/// The device of a tensor in DLPack's terms. Needs `can_import`.
dlpack::Device raw_device_of(pybind11::handle object);

/// Makes a tensor in torch's own memory, with the shape and strides of `view`, whose data it sets, and the dtype of
/// `like`. `device` is a `torch.device`.
pybind11::object empty_tensor(View& view, pybind11::handle like, pybind11::handle device);

/// A new tensor with its own storage. The memory exists before torch's tensor object, so threads can fill it while the
/// objects are made. Until `hand_over`, this object owns the memory.
class NewTensor {
public:
    /// Frees `place` and the tensor's memory. Any thread may call it, with or without the GIL.
    using Release = void (*)(void* place, void* owner) noexcept;

    NewTensor() = default;
    /// A tensor that torch has made.
    explicit NewTensor(pybind11::object made) noexcept;
    /// A tensor at `view.data`, whose DLPack type is `type`. Its description is written to `place`, which has room for
    /// `description_bytes(view.ndim)`. Needs `can_import`.
    NewTensor(const View& view, const dlpack::DataType& type, const dlpack::Device& device, void* place,
              Release release, void* owner) noexcept;

    static std::size_t description_bytes(int ndim) noexcept;

    /// The tensor; to be called once.
    pybind11::object hand_over();

private:
    struct Description;
    struct Drop {
        void operator()(Description* description) const noexcept;
    };

    std::unique_ptr<Description, Drop> description_;  // null if torch made the tensor
    pybind11::object made_;                           // the tensor, if torch made it
};

/// A new CPU tensor in a block of the pool, with the shape and strides of `view`, whose data it sets, and the dtype of
/// `like`, whose DLPack type is `type`. Throws std::bad_alloc.
NewTensor new_cpu_tensor(View& view, const dlpack::DataType& type, pybind11::handle like);

}  // namespace gsprune
