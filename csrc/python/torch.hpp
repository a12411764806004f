#pragma once

#include <pybind11/pybind11.h>

#include "tensor/dlpack.hpp"

namespace gsprune {

/// Functions and types of torch that the core uses. The core is built without torch, so Python passes them at import.
struct Torch {
    PyTypeObject* tensor_type = nullptr;
    PyTypeObject* parameter_type = nullptr;
    const dlpack::ExchangeApi* api = nullptr;  // null before torch 2.10
    pybind11::object empty_strided;
    pybind11::dict float_dtypes;         // torch.dtype -> `DType` as an integer
    pybind11::object set;                // torch.Tensor.set_
    pybind11::object untyped_storage;    // torch.Tensor.untyped_storage
    pybind11::object increment_version;  // takes an iterable of tensors
    // Attribute names, made once.
    pybind11::str data{"data"};
    pybind11::str data_ptr{"data_ptr"};
    pybind11::str dtype{"dtype"};
    pybind11::str requires_grad{"requires_grad"};
};

Torch& torch();

}  // namespace gsprune
