#pragma once

#include <cstdint>

// The parts of DLPack 1.x that the core uses; see https://dmlc.github.io/dlpack/latest/c_api.html.
namespace gsprune::dlpack {

struct Version {
    std::uint32_t major;
    std::uint32_t minor;
};

struct Device {
    std::int32_t type;
    std::int32_t id;
};
constexpr std::int32_t device_cpu = 1;
constexpr std::int32_t device_cuda = 2;
constexpr std::int32_t device_cuda_host = 3;  // pinned host memory
constexpr std::int32_t device_rocm = 10;      // torch calls these devices "cuda", too
constexpr Device cpu{device_cpu, 0};

struct DataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};
constexpr std::uint8_t code_float = 2;
constexpr std::uint8_t code_bfloat = 4;
constexpr std::uint8_t code_complex = 5;

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; may be null for contiguous tensors before DLPack 1.2
    std::uint64_t byte_offset;
};

struct ManagedTensor {
    Version version;
    void* context;
    void (*deleter)(ManagedTensor*);
    std::uint64_t flags;
    Tensor tensor;
};

/// The table behind `torch.Tensor.__dlpack_c_exchange_api__`. No function synchronizes a stream.
struct ExchangeApi {
    Version version;
    void* previous;
    int (*allocate)(Tensor* prototype, ManagedTensor** out, void* context,
                    void (*set_error)(void* context, const char* kind, const char* message));
    int (*export_managed)(void* object, ManagedTensor** out);
    int (*import_managed)(ManagedTensor* tensor, void** out);  // takes ownership
    int (*peek)(void* object, Tensor* out);                    // may be null; `out` is valid while `object` lives
    int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // namespace gsprune::dlpack
