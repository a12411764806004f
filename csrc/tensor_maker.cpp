#include "tensor_maker.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>

#include "ceil_div.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

// As torch aligns CUDA tensors.
constexpr std::size_t line = 512;
// Torch, too, packs tensors of up to 1 MiB into larger pieces of memory, and takes longer ones as they come.
constexpr std::size_t longest_shared = std::size_t{1} << 20U;
// The most that a tensor can keep from use that outlives its neighbours; a block of impala-4 holds eight convolutions.
constexpr std::size_t longest_block = std::size_t{4} << 20U;

std::size_t num_bytes_of(const View& view) { return static_cast<std::size_t>(view.numel() * view.itemsize); }

std::size_t in_lines(std::size_t num_bytes) {
    return static_cast<std::size_t>(ceil_div(static_cast<std::int64_t>(num_bytes), std::int64_t{line})) * line;
}

/// Torch's memory under several tensors; as long as one of them, or its maker, lives.
class Block {
public:
    explicit Block(py::object memory) : memory_(std::move(memory)) {}
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    /// A tensor at `view.data`, which lies in the block.
    py::object make(const View& view, const dlpack::DataType& type, const dlpack::Device& device) {
        Told& told = told_.emplace_back();
        std::copy_n(view.shape.begin(), max_dims, told.shape.begin());
        std::copy_n(view.strides.begin(), max_dims, told.strides.begin());
        told.block = this;
        told.managed = {{1, 0},
                        &told,
                        &Told::drop,
                        0,
                        {view.data, device, view.ndim, type, told.shape.data(), told.strides.data(), 0}};
        py::object made = import_tensor(told.managed);
        told.is_handed_over = true;
        ++num_holders_;
        return made;
    }

    /// Any thread may let go of a tensor, with or without the GIL. What is left when the interpreter has gone is the
    /// system's to take.
    void release() noexcept {
        if (--num_holders_ != 0 || Py_IsInitialized() == 0) return;
        const PyGILState_STATE state = PyGILState_Ensure();
        delete this;
        PyGILState_Release(state);
    }

private:
    ~Block() = default;

    struct Told {
        dlpack::ManagedTensor managed;
        std::array<std::int64_t, max_dims> shape;
        std::array<std::int64_t, max_dims> strides;
        Block* block;
        bool is_handed_over = false;

        /// Torch drops what it could not take over, too.
        static void drop(dlpack::ManagedTensor* managed) {
            const auto* told = static_cast<Told*>(managed->context);
            if (told->is_handed_over) told->block->release();
        }
    };

    py::object memory_;
    std::atomic<std::size_t> num_holders_{1};  // its maker
    std::deque<Told> told_;
};

struct Release {
    void operator()(Block* block) const noexcept { block->release(); }
};

}  // namespace

TensorMaker::TensorMaker(const py::list& tensors) : tensors_(tensors) { wanted_.reserve(tensors.size()); }

void TensorMaker::add(View& view, const dlpack::DataType& type, py::handle like, std::size_t kind) {
    num_kinds_ = std::max(num_kinds_, kind + 1);
    wanted_.push_back({&view, type, like, kind});
}

py::list TensorMaker::make() {
    py::list made(wanted_.size());
    if (wanted_.empty()) return made;
    TorchMaker single(tensors_[0].attr("device"), num_kinds_);
    std::vector<std::size_t> shared;  // of one block
    std::size_t length = 0;
    const auto flush = [&] {
        if (shared.size() > 1) {
            make_block(shared, length, made);
        } else if (!shared.empty()) {
            const Wanted& wanted = wanted_[shared[0]];
            made[shared[0]] = single.make(*wanted.view, wanted.like, wanted.kind);
        }
        shared.clear();
        length = 0;
    };
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
        const Wanted& wanted = wanted_[i];
        const std::size_t num_bytes = in_lines(num_bytes_of(*wanted.view));
        if (!can_import() || num_bytes > longest_shared) {
            made[i] = single.make(*wanted.view, wanted.like, wanted.kind);
            continue;
        }
        if (length + num_bytes > longest_block) flush();
        shared.push_back(i);
        length += num_bytes;
    }
    flush();
    return made;
}

void TensorMaker::make_block(const std::vector<std::size_t>& shared, std::size_t length, py::list& made) {
    const py::handle first = wanted_[shared[0]].like;
    View whole;
    whole.ndim = 1;
    whole.itemsize = wanted_[shared[0]].view->itemsize;
    whole.shape[0] = ceil_div(static_cast<std::int64_t>(length), whole.itemsize);
    whole.strides[0] = 1;
    py::object memory = TorchMaker(first.attr("device")).make(whole, first);
    const std::unique_ptr<Block, Release> block(new Block(std::move(memory)));
    const dlpack::Device device = raw_device_of(first);
    std::size_t offset = 0;
    for (const std::size_t i : shared) {
        View& view = *wanted_[i].view;
        const std::size_t num_bytes = num_bytes_of(view);
        view.data = num_bytes == 0 ? nullptr : whole.data + offset;
        offset += in_lines(num_bytes);
        made[i] = block->make(view, wanted_[i].type, device);
    }
}

}  // namespace gsprune
