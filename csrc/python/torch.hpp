#pragma once

#include <pybind11/pybind11.h>

#include "tensor/dlpack.hpp"

namespace gsprune {

/// Functions and constants of torch that the core uses. Python hands them over once: the core is built without torch.
struct Torch {
    PyTypeObject* tensor_type = nullptr;
    PyTypeObject* parameter_type = nullptr;
    const dlpack::ExchangeApi* api = nullptr;  // null where torch has none, as before 2.10
    pybind11::object empty_strided;
    pybind11::dict float_dtypes;         // torch.dtype -> number of the `DType`
    pybind11::object set;                // torch.Tensor.set_
    pybind11::object untyped_storage;    // torch.Tensor.untyped_storage
    pybind11::object increment_version;  // of an iterable of tensors
    // Names that are looked up for every tensor.
    pybind11::str data{"data"};
    pybind11::str data_ptr{"data_ptr"};
    pybind11::str dtype{"dtype"};
    pybind11::str requires_grad{"requires_grad"};
};

Torch& torch();

}  // namespace gsprune
