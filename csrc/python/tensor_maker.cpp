#include "python/tensor_maker.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "tensor/ceil_div.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

// As torch aligns CUDA tensors.
constexpr std::int64_t line = 512;
// Torch, too, packs tensors of up to 1 MiB into larger pieces of memory, and takes longer ones as they come.
constexpr std::size_t longest_shared = std::size_t{1} << 20U;
// Tensors of one kind go together, those of several need not: with these limits the memory of 150 steps of impala-4 was
// at most 1.4 times its tensors (1.2 with global scope, which cuts few layers at a time), with blocks of 4 MiB of any
// kinds 3.2 times (6.9), for six allocations more per step.
constexpr std::size_t own_block = std::size_t{64} << 10U;       // a kind of so many bytes has a block of its own
constexpr std::size_t longest_block = std::size_t{256} << 10U;  // of several kinds

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
    : num_kinds_(num_kinds), alone_(device, num_kinds), blocks_memory_(device) {}

TensorMaker::~TensorMaker() = default;

void TensorMaker::add(View& view, const dlpack::DataType& type, py::handle like, std::size_t kind) {
    wanted_.push_back({&view, type, like, kind});
}

void TensorMaker::allocate() {
    made_ = py::list(wanted_.size());
    std::vector<Shared> kinds(num_kinds_);
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
        const std::size_t length = in_lines(*wanted_[i].view);
        if (can_import() && length <= longest_shared) {
            kinds[wanted_[i].kind].add(i, length);
        } else {
            allocate_alone(i);
        }
    }
    Shared small;
    for (const Shared& kind : kinds) {
        if (kind.num_bytes >= own_block) {
            allocate_shared(kind);
            continue;
        }
        if (small.num_bytes + kind.num_bytes > longest_block) allocate_shared(std::exchange(small, {}));
        for (const std::size_t i : kind.indices) small.indices.push_back(i);
        small.num_bytes += kind.num_bytes;
    }
    allocate_shared(small);
}

void TensorMaker::allocate_shared(const Shared& shared) {
    if (shared.indices.size() == 1) allocate_alone(shared.indices[0]);
    if (shared.indices.size() > 1) allocate_block(shared);
}

void TensorMaker::allocate_alone(std::size_t index) {
    const Wanted& wanted = wanted_[index];
    made_[index] = alone_.make(*wanted.view, wanted.like, wanted.kind);
}

void TensorMaker::allocate_block(const Shared& shared) {
    const Wanted& first = wanted_[shared.indices[0]];
    View whole;
    whole.ndim = 1;
    whole.itemsize = first.view->itemsize;
    whole.shape[0] = ceil_div(static_cast<std::int64_t>(shared.num_bytes), whole.itemsize);
    whole.strides[0] = 1;
    py::object memory = blocks_memory_.make(whole, first.like);
    std::size_t num_dims = 0;
    for (const std::size_t i : shared.indices) num_dims += static_cast<std::size_t>(wanted_[i].view->ndim);
    std::unique_ptr<Block, Release> block(new Block(std::move(memory), shared.indices.size(), num_dims));
    blocks_.push_back(std::move(block));
    const dlpack::Device device = raw_device_of(first.like);
    std::size_t offset = 0;
    for (const std::size_t i : shared.indices) {
        View& view = *wanted_[i].view;
        view.data = view.numel() == 0 ? nullptr : whole.data + offset;
        offset += in_lines(view);
        blocks_.back()->add(i, view, wanted_[i].type, device);
    }
}

py::list TensorMaker::make() {
    if (!made_) throw std::runtime_error("`results` were taken before");
    py::list made = std::move(made_);  // also where it fails: what torch has taken over once must not be offered again
    for (const std::unique_ptr<Block, Release>& block : blocks_) block->hand_over(made);
    blocks_.clear();
    return made;
}

}  // namespace gsprune
