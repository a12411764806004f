#include "python/torch_tensors.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "memory/block_pool.hpp"
#include "python/torch.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

/// `data_ptr` of a tensor or storage; null if torch refuses because there is no memory.
std::byte* data_of(py::handle object) {
    PyObject* const arguments[] = {object.ptr()};
    PyObject* address = PyObject_VectorcallMethod(torch().data_ptr.ptr(), arguments, 1, nullptr);
    if (address == nullptr) {
        if (PyErr_ExceptionMatches(PyExc_RuntimeError) == 0) throw py::error_already_set();
        PyErr_Clear();
        return nullptr;
    }
    return reinterpret_cast<std::byte*>(py::reinterpret_steal<py::object>(address).cast<std::uintptr_t>());
}

std::byte* address_of(py::handle object) {
    if (dlpack::Tensor raw{}; torch().api != nullptr && torch().api->peek(object.ptr(), &raw) == 0) {
        return raw.data == nullptr ? nullptr : static_cast<std::byte*>(raw.data) + raw.byte_offset;
    }
    PyErr_Clear();
    return data_of(object);
}

std::optional<DType> dtype_of(const dlpack::DataType& type) noexcept {
    if (type.lanes != 1) return std::nullopt;
    if (type.code == dlpack::code_bfloat && type.bits == 16) return DType::bfloat16;
    if (type.code != dlpack::code_float) return std::nullopt;
    switch (type.bits) {
        case 16:
            return DType::float16;
        case 32:
            return DType::float32;
        case 64:
            return DType::float64;
        default:
            return std::nullopt;
    }
}

std::string text(const dlpack::Device& device) {
    if (device.type == dlpack::device_cpu) return "cpu";
    if (device.type == dlpack::device_cuda) return "cuda:" + std::to_string(device.id);
    return "DLPack device type " + std::to_string(device.type);
}

/// The name of an argument, and the device that it must be on.
struct Argument {
    const ArgumentName& name;
    const dlpack::Device& device;

    [[noreturn]] void refuse(const std::string& got) const {
        const bool is_cpu = device.type == dlpack::device_cpu;
        throw py::value_error("`" + name.text() + "` must be a strided " +
                              (is_cpu ? "CPU tensor" : "tensor on " + text(device)) + ", got " + got);
    }

    void check_device(const dlpack::Device& found) const {
        if (found.type == dlpack::device_cuda_host && device.type == dlpack::device_cpu) return;
        const std::int32_t type = found.type == dlpack::device_rocm ? dlpack::device_cuda : found.type;
        if (type == device.type && found.id == device.id) return;
        refuse("a tensor on " + text(found) + "; use backend='torch' for a model that is spread over several devices");
    }
};

void check_ndim(std::int64_t ndim, const Argument& argument) {
    if (ndim > max_dims) {
        throw py::value_error("`" + argument.name.text() + "` must have at most " + std::to_string(max_dims) +
                              " dimensions, got " + std::to_string(ndim) + "; use backend='torch'");
    }
}

/// Refuses conjugated and negated views, whose memory holds other values. They are complex, or the imaginary part of a
/// complex tensor, whose strides are at least 2. Other tensors need no check.
void check_bits(py::handle object, const View& view, bool is_complex, const Argument& argument) {
    const auto ndim = static_cast<std::size_t>(view.ndim);
    for (std::size_t dim = 0; dim < ndim && !is_complex; ++dim) {
        if (view.shape[dim] > 1 && view.strides[dim] == 1) return;
    }
    if (object.attr("is_conj")().cast<bool>() || object.attr("is_neg")().cast<bool>()) {
        argument.refuse("a conjugated or negated view; call .resolve_conj().resolve_neg() first");
    }
}

TorchTensor read_by_api(py::handle object, const Argument& argument) {
    dlpack::Tensor raw{};
    if (torch().api->peek(object.ptr(), &raw) != 0) {
        const py::error_already_set cause;
        const std::string why = cause.what();  // a message line, then torch's trace
        argument.refuse("one that cannot be read: " + why.substr(0, why.find('\n')));
    }
    argument.check_device(raw.device);
    if (raw.dtype.bits % 8 != 0) argument.refuse("elements of " + std::to_string(raw.dtype.bits) + " bits");
    check_ndim(raw.ndim, argument);
    TorchTensor tensor;
    tensor.view.data = static_cast<std::byte*>(raw.data);
    if (raw.byte_offset != 0) tensor.view.data += raw.byte_offset;
    tensor.view.ndim = raw.ndim;
    tensor.view.itemsize = raw.dtype.bits / 8 * raw.dtype.lanes;
    std::copy_n(raw.shape, raw.ndim, tensor.view.shape.begin());
    std::copy_n(raw.strides, raw.ndim, tensor.view.strides.begin());
    tensor.type = raw.dtype;
    tensor.dtype = dtype_of(raw.dtype);
    check_bits(object, tensor.view, raw.dtype.code == dlpack::code_complex, argument);
    return tensor;
}

/// Empty if the device is neither the CPU nor a CUDA device.
std::optional<dlpack::Device> device_by_attributes(py::handle object) {
    const py::object device = object.attr("device");
    const auto type = device.attr("type").cast<std::string>();
    if (type == "cpu") return dlpack::cpu;
    if (type == "cuda") return dlpack::Device{dlpack::device_cuda, device.attr("index").cast<std::int32_t>()};
    return std::nullopt;
}

std::string on_its_device(py::handle object) {
    return "a tensor on " + py::str(object.attr("device")).cast<std::string>();
}

TorchTensor read_by_attributes(py::handle object, const Argument& argument) {
    const std::optional<dlpack::Device> device = device_by_attributes(object);
    if (!device) argument.refuse(on_its_device(object));
    argument.check_device(*device);
    if (object.attr("is_sparse").cast<bool>() || object.attr("is_quantized").cast<bool>()) {
        argument.refuse("a sparse or quantized one");
    }
    const py::tuple shape = object.attr("shape");
    const py::tuple strides = object.attr("stride")();
    check_ndim(static_cast<std::int64_t>(shape.size()), argument);
    TorchTensor tensor;
    tensor.view.data = address_of(object);
    tensor.view.ndim = static_cast<int>(shape.size());
    tensor.view.itemsize = object.attr("element_size")().cast<std::int64_t>();
    for (std::size_t dim = 0; dim < shape.size(); ++dim) {
        tensor.view.shape[dim] = shape[dim].cast<std::int64_t>();
        tensor.view.strides[dim] = strides[dim].cast<std::int64_t>();
    }
    check_bits(object, tensor.view, object.attr("is_complex")().cast<bool>(), argument);
    const py::object dtype = object.attr("dtype");
    if (torch().float_dtypes.contains(dtype)) {
        tensor.dtype = static_cast<DType>(torch().float_dtypes[dtype].cast<int>());
    }
    return tensor;
}

}  // namespace

/// The DLPack description of a tensor; shape and strides follow.
struct NewTensor::Description {
    dlpack::ManagedTensor managed;
    Release release;
    void* owner;
    bool is_handed_over;

    /// Torch calls this also for a tensor that it failed to import.
    static void drop(dlpack::ManagedTensor* managed) {
        auto* description = static_cast<Description*>(managed->context);
        if (description->is_handed_over) Drop{}(description);
    }
};

void NewTensor::Drop::operator()(Description* description) const noexcept {
    description->release(description, description->owner);
}

std::size_t NewTensor::description_bytes(int ndim) noexcept {
    return sizeof(Description) + 2 * sizeof(std::int64_t) * static_cast<std::size_t>(ndim);
}

NewTensor::NewTensor(py::object made) noexcept : made_(std::move(made)) {}

NewTensor::NewTensor(const View& view, const dlpack::DataType& type, const dlpack::Device& device, void* place,
                     Release release, void* owner) noexcept
    : description_(new (place) Description{{}, release, owner, false}) {
    auto* shape = reinterpret_cast<std::int64_t*>(description_.get() + 1);
    std::int64_t* strides = std::copy_n(view.shape.begin(), view.ndim, shape);
    std::copy_n(view.strides.begin(), view.ndim, strides);
    dlpack::ManagedTensor& managed = description_->managed;
    managed.version = {1, 0};
    managed.context = description_.get();
    managed.deleter = &Description::drop;
    managed.tensor = {view.data, device, view.ndim, type, shape, strides, 0};
}

py::object NewTensor::hand_over() {
    if (!description_) return std::move(made_);
    void* object = nullptr;
    if (torch().api->import_managed(&description_->managed, &object) != 0) throw py::error_already_set();
    description_.release()->is_handed_over = true;
    return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

/// The description is at the start of the block, for locality.
NewTensor new_cpu_tensor(View& view, const dlpack::DataType& type, py::handle like) {
    if (!can_import()) return NewTensor(empty_tensor(view, like, like.attr("device")));
    constexpr std::size_t line = 64;
    const auto num_bytes = static_cast<std::size_t>(view.numel() * view.itemsize);
    const std::size_t offset = (NewTensor::description_bytes(view.ndim) + line - 1) / line * line;
    void* block = acquire_block(offset + num_bytes);
    view.data = num_bytes == 0 ? nullptr : static_cast<std::byte*>(block) + offset;
    const auto release = [](void* place, void*) noexcept { release_block(place); };
    return NewTensor(view, type, dlpack::cpu, block, release, nullptr);
}

bool can_import() noexcept { return torch().api != nullptr; }

dlpack::Device raw_device_of(py::handle object) {
    dlpack::Tensor raw{};
    if (torch().api->peek(object.ptr(), &raw) != 0) throw py::error_already_set();
    return raw.device;
}

py::object empty_tensor(View& view, py::handle like, py::handle device) {
    static const auto* const names = new py::tuple(py::make_tuple("dtype", "device"));
    const py::tuple shape = as_tuple(view.shape, view.ndim);
    const py::tuple strides = as_tuple(view.strides, view.ndim);
    const py::object dtype = like.attr(torch().dtype);
    PyObject* arguments[] = {shape.ptr(), strides.ptr(), dtype.ptr(), device.ptr()};
    PyObject* made = PyObject_Vectorcall(torch().empty_strided.ptr(), arguments, 2, names->ptr());
    if (made == nullptr) throw py::error_already_set();
    auto tensor = py::reinterpret_steal<py::object>(made);
    view.data = address_of(tensor);
    return tensor;
}

py::tuple as_tuple(const std::array<std::int64_t, max_dims>& numbers, int ndim) {
    py::tuple tuple(static_cast<std::size_t>(ndim));
    for (std::size_t dim = 0; dim < tuple.size(); ++dim) tuple[dim] = numbers[dim];
    return tuple;
}

namespace {

void check_type(py::handle object, const ArgumentName& argument) {
    if (torch().tensor_type == nullptr) throw std::runtime_error("call bind_torch first");
    if (PyObject_TypeCheck(object.ptr(), torch().tensor_type) != 0) return;
    throw py::value_error("`" + argument.text() + "` must be a torch.Tensor, got " +
                          py::str(py::type::handle_of(object)).cast<std::string>());
}

/// Refuses tensors without memory: wrapper subclasses such as DTensor, zero tensors that are not materialized, and
/// views of a storage that was resized to nothing. Their address is their offset in the storage, starting at null. For
/// torch's own classes an address above the first mappable page passes, because asking every tensor for its storage
/// would cost 2 % of a small network's step.
void check_memory(py::handle object, const View& view, const Argument& argument) {
    constexpr std::uintptr_t first_address = 1U << 16U;
    if (view.numel() == 0) return;
    const bool is_torch_class =
        Py_TYPE(object.ptr()) == torch().tensor_type || Py_TYPE(object.ptr()) == torch().parameter_type;
    if (reinterpret_cast<std::uintptr_t>(view.data) >= first_address &&
        (is_torch_class || data_of(object.attr("untyped_storage")()) != nullptr)) {
        return;
    }
    argument.refuse("one without memory of its own: " + py::str(py::type::handle_of(object)).cast<std::string>());
}

}  // namespace

TorchTensor read_tensor(py::handle object, const ArgumentName& argument, const dlpack::Device& device) {
    check_type(object, argument);
    const Argument wanted{argument, device};
    TorchTensor tensor = torch().api != nullptr ? read_by_api(object, wanted) : read_by_attributes(object, wanted);
    check_memory(object, tensor.view, wanted);
    return tensor;
}

dlpack::Device device_of(py::handle object, const ArgumentName& argument) {
    check_type(object, argument);
    const std::optional<dlpack::Device> device = device_by_attributes(object);
    if (device) return *device;
    throw py::value_error("`" + argument.text() + "` must be on the CPU or a CUDA device, got " +
                          on_its_device(object));
}

std::optional<View> peek_shape(py::handle object) noexcept {
    const Torch& bound = torch();
    if (bound.api == nullptr || PyObject_TypeCheck(object.ptr(), bound.tensor_type) == 0) return std::nullopt;
    dlpack::Tensor raw{};
    if (bound.api->peek(object.ptr(), &raw) != 0) {
        PyErr_Clear();
        return std::nullopt;
    }
    if (raw.ndim > max_dims) return std::nullopt;
    View view;
    view.ndim = raw.ndim;
    std::copy_n(raw.shape, raw.ndim, view.shape.begin());
    return view;
}

}  // namespace gsprune
