#include "tensor_maker.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "ceil_div.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

// As torch aligns CUDA tensors.
constexpr std::int64_t line = 512;
// Torch, too, packs tensors of up to 1 MiB into larger pieces of memory, and takes longer ones as they come.
constexpr std::size_t longest_shared = std::size_t{1} << 20U;
// The most that a tensor can keep from use that outlives its neighbours; eight convolutions of impala-4.
constexpr std::size_t longest_block = std::size_t{4} << 20U;

std::size_t in_lines(const View& view) {
    return static_cast<std::size_t>(ceil_div(view.numel() * view.itemsize, line) * line);
}

}  // namespace

/// Torch's memory under several tensors; as long as one of them, or its maker, lives.
class TensorMaker::Block {
public:
    Block(py::object memory, std::size_t num_tensors, std::size_t num_dims) : memory_(std::move(memory)) {
        told_.reserve(num_tensors);
        sizes_.reserve(2 * num_dims);
    }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    /// A tensor at `view.data`, which lies in the block, as the `index`-th of all; for `num_tensors` times, of
    /// `num_dims` dimensions together.
    void add(std::size_t index, const View& view, const dlpack::DataType& type, const dlpack::Device& device) {
        Told& told = told_.emplace_back();
        told.index = index;
        told.block = this;
        std::int64_t* shape = append(view.shape, view.ndim);
        std::int64_t* strides = append(view.strides, view.ndim);
        told.managed.tensor = {view.data, device, view.ndim, type, shape, strides, 0};
        told.managed.version = {1, 0};
        told.managed.context = &told;
        told.managed.deleter = &Told::drop;
    }

    void hand_over(py::list& made) {
        for (Told& told : told_) {
            made[told.index] = import_tensor(told.managed);
            told.is_handed_over = true;
            ++num_holders_;
        }
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
        dlpack::ManagedTensor managed{};
        std::size_t index = 0;
        Block* block = nullptr;
        bool is_handed_over = false;

        /// Torch drops what it could not take over, too.
        static void drop(dlpack::ManagedTensor* managed) {
            const auto* told = static_cast<Told*>(managed->context);
            if (told->is_handed_over) told->block->release();
        }
    };

    std::int64_t* append(const std::array<std::int64_t, max_dims>& numbers, int ndim) {
        const std::size_t begin = sizes_.size();
        sizes_.insert(sizes_.end(), numbers.begin(), numbers.begin() + ndim);
        return sizes_.data() + begin;
    }

    py::object memory_;
    std::atomic<std::size_t> num_holders_{1};  // its maker
    // Torch has addresses in these: they never grow beyond what was reserved.
    std::vector<Told> told_;
    std::vector<std::int64_t> sizes_;
};

void TensorMaker::Release::operator()(Block* block) const noexcept { block->release(); }

TensorMaker::TensorMaker(const py::object& device, std::size_t num_kinds)
    : alone_(device, num_kinds), blocks_memory_(device) {}

TensorMaker::~TensorMaker() = default;

void TensorMaker::add(View& view, const dlpack::DataType& type, py::handle like, std::size_t kind) {
    wanted_.push_back({&view, type, like, kind});
}

void TensorMaker::allocate() {
    made_ = py::list(wanted_.size());
    std::vector<std::size_t> shared;  // of one block
    std::size_t num_bytes = 0;
    const auto flush = [&] {
        if (shared.size() == 1) allocate_alone(shared[0]);
        if (shared.size() > 1) allocate_block(shared, num_bytes);
        shared.clear();
        num_bytes = 0;
    };
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
        const std::size_t length = in_lines(*wanted_[i].view);
        if (!can_import() || length > longest_shared) {
            allocate_alone(i);
            continue;
        }
        if (num_bytes + length > longest_block) flush();
        shared.push_back(i);
        num_bytes += length;
    }
    flush();
}

void TensorMaker::allocate_alone(std::size_t index) {
    const Wanted& wanted = wanted_[index];
    made_[index] = alone_.make(*wanted.view, wanted.like, wanted.kind);
}

void TensorMaker::allocate_block(const std::vector<std::size_t>& shared, std::size_t num_bytes) {
    const Wanted& first = wanted_[shared[0]];
    View whole;
    whole.ndim = 1;
    whole.itemsize = first.view->itemsize;
    whole.shape[0] = ceil_div(static_cast<std::int64_t>(num_bytes), whole.itemsize);
    whole.strides[0] = 1;
    py::object memory = blocks_memory_.make(whole, first.like);
    std::size_t num_dims = 0;
    for (const std::size_t i : shared) num_dims += static_cast<std::size_t>(wanted_[i].view->ndim);
    blocks_.emplace_back(new Block(std::move(memory), shared.size(), num_dims));
    const dlpack::Device device = raw_device_of(first.like);
    std::size_t offset = 0;
    for (const std::size_t i : shared) {
        View& view = *wanted_[i].view;
        view.data = view.numel() == 0 ? nullptr : whole.data + offset;
        offset += in_lines(view);
        blocks_.back()->add(i, view, wanted_[i].type, device);
    }
}

py::list TensorMaker::make() {
    if (!made_) throw std::runtime_error("`results` were taken before");
    for (const std::unique_ptr<Block, Release>& block : blocks_) block->hand_over(made_);
    blocks_.clear();
    return std::move(made_);
}

}  // namespace gsprune
