#include "python/device_tensors.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "tensor/ceil_div.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

// Torch's alignment of CUDA tensors.
constexpr std::int64_t line = 512;
// Torch's allocator also packs tensors of up to 1 MiB, and allocates larger ones separately.
constexpr std::size_t longest_shared = std::size_t{1} << 20U;
// The next step replaces tensors of one kind together, but not those of several kinds. With these limits, 150 steps of
// impala-4 used at most 1.4 times the memory of the tensors (1.2 with global scope, which cuts fewer layers per step).
// With mixed blocks of 4 MiB it was 3.2 times (6.9), for six allocations fewer per step.
constexpr std::size_t own_block = std::size_t{64} << 10U;  // a kind with at least this many bytes gets its own block
constexpr std::size_t longest_block = std::size_t{256} << 10U;  // the most bytes of a block of several kinds

std::size_t in_lines(const View& view) {
    return static_cast<std::size_t>(ceil_div(view.numel() * view.itemsize, line) * line);
}

/// A block of torch's memory with several tensors, and their descriptions. It lives as long as one of them.
struct Block {
    py::object memory;
    std::unique_ptr<std::byte[]> descriptions;
    std::atomic<std::size_t> num_holders{1};  // 1: `make_block`

    /// A `NewTensor::Release`. After the interpreter has ended the block is leaked.
    static void release(void* /*place*/, void* owner) noexcept {
        auto* block = static_cast<Block*>(owner);
        if (--block->num_holders != 0 || Py_IsInitialized() == 0) return;
        const PyGILState_STATE state = PyGILState_Ensure();
        delete block;
        PyGILState_Release(state);
    }
};

/// Indices of tensors that share a block.
struct Shared {
    std::vector<std::size_t> indices;
    std::size_t num_bytes = 0;
};

class Maker {
public:
    Maker(const std::vector<WantedTensor>& wanted, const py::object& device)
        : wanted_(wanted), device_(device), made_(wanted.size()) {}

    void make_alone(std::size_t index) {
        const WantedTensor& wanted = wanted_[index];
        made_[index] = NewTensor(empty_tensor(*wanted.view, wanted.like, device_));
    }

    void make(const Shared& shared) {
        if (shared.indices.size() == 1) make_alone(shared.indices[0]);
        if (shared.indices.size() > 1) make_block(shared);
    }

    [[nodiscard]] std::vector<NewTensor> all() && { return std::move(made_); }

private:
    void make_block(const Shared& shared) {
        const WantedTensor& first = wanted_[shared.indices[0]];
        View whole;
        whole.ndim = 1;
        whole.itemsize = first.view->itemsize;
        whole.shape[0] = ceil_div(static_cast<std::int64_t>(shared.num_bytes), whole.itemsize);
        whole.strides[0] = 1;
        std::size_t num_bytes = 0;
        for (const std::size_t i : shared.indices) num_bytes += NewTensor::description_bytes(wanted_[i].view->ndim);
        auto* block = new Block{empty_tensor(whole, first.like, device_), std::make_unique<std::byte[]>(num_bytes)};
        const auto release = [](Block* held) noexcept { Block::release(nullptr, held); };
        const std::unique_ptr<Block, decltype(release)> holder(block, release);
        const dlpack::Device device = raw_device_of(first.like);
        std::byte* data = whole.data;
        std::byte* place = block->descriptions.get();
        for (const std::size_t i : shared.indices) {
            View& view = *wanted_[i].view;
            view.data = view.numel() == 0 ? nullptr : data;
            data += in_lines(view);
            ++block->num_holders;
            made_[i] = NewTensor(view, wanted_[i].type, device, place, &Block::release, block);
            place += NewTensor::description_bytes(view.ndim);
        }
    }

    const std::vector<WantedTensor>& wanted_;
    const py::object& device_;
    std::vector<NewTensor> made_;
};

}  // namespace

std::vector<NewTensor> new_device_tensors(const std::vector<WantedTensor>& wanted, std::size_t num_kinds,
                                          const py::object& device) {
    Maker maker(wanted, device);
    std::vector<Shared> kinds(num_kinds);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const std::size_t length = in_lines(*wanted[i].view);
        if (can_import() && length <= longest_shared) {
            Shared& kind = kinds[wanted[i].kind];
            kind.indices.push_back(i);
            kind.num_bytes += length;
        } else {
            maker.make_alone(i);
        }
    }
    Shared small;
    for (const Shared& kind : kinds) {
        if (kind.num_bytes >= own_block) {
            maker.make(kind);
            continue;
        }
        if (small.num_bytes + kind.num_bytes > longest_block) maker.make(std::exchange(small, {}));
        small.indices.insert(small.indices.end(), kind.indices.begin(), kind.indices.end());
        small.num_bytes += kind.num_bytes;
    }
    maker.make(small);
    return std::move(maker).all();
}

}  // namespace gsprune
