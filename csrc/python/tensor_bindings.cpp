#include "python/arguments.hpp"
#include "python/bindings.hpp"
#include "python/torch.hpp"
#include "tensor/dtypes.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

const dlpack::ExchangeApi* open_api(const py::object& capsule) {
    constexpr const char* name = "dlpack_exchange_api";
    if (PyCapsule_IsValid(capsule.ptr(), name) == 0) return nullptr;
    const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), name));
    // Another major version may have another table.
    return api->version.major == 1 && api->peek != nullptr ? api : nullptr;
}

/// `exchange_api` is the capsule `torch.Tensor.__dlpack_c_exchange_api__`. If torch has none (None), tensors are read
/// through their attributes and made by `empty_strided`.
void bind_torch(const py::type& tensor_type, const py::type& parameter_type, const py::object& exchange_api,
                const py::function& empty_strided, const py::dict& float_dtypes, const py::object& set,
                const py::object& untyped_storage, const py::object& increment_version) {
    Torch& bound = torch();
    bound.tensor_type = reinterpret_cast<PyTypeObject*>(tensor_type.inc_ref().ptr());
    bound.parameter_type = reinterpret_cast<PyTypeObject*>(parameter_type.inc_ref().ptr());
    bound.api = open_api(exchange_api);
    bound.empty_strided = empty_strided;
    bound.float_dtypes = float_dtypes;
    bound.set = set;
    bound.untyped_storage = untyped_storage;
    bound.increment_version = increment_version;
}

}  // namespace

/// Never destroyed: references must not be dropped after the interpreter has ended.
Torch& torch() {
    static auto* const the_torch = new Torch;
    return *the_torch;
}

void bind_tensor(py::module_& module) {
    module.attr("FLOAT_DTYPES") = as_tuple(dtype_names);
    module.def("bind_torch", &bind_torch, py::kw_only(), py::arg("tensor_type"), py::arg("parameter_type"),
               py::arg("exchange_api"), py::arg("empty_strided"), py::arg("float_dtypes"), py::arg("set"),
               py::arg("untyped_storage"), py::arg("increment_version"),
               "Give the core the functions and types of torch that it uses.");
}

}  // namespace gsprune
