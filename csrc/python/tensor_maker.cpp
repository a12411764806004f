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

}  // namespace

/// A block of torch's memory with several tensors. It lives as long as one of them or its maker.
class TensorMaker::Block {
public:
    Block(py::object memory, std::size_t num_tensors, std::size_t num_dims) : memory_(std::move(memory)) {
        exports_.reserve(num_tensors);
        sizes_.reserve(2 * num_dims);
    }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    /// Adds the tensor at `view.data` in the block, number `index` of all tensors. The constructor's `num_tensors` and
    /// `num_dims` (of all tensors together) must not be exceeded.
    void add(std::size_t index, const View& view, const dlpack::DataType& type, const dlpack::Device& device) {
        Export& exported = exports_.emplace_back();
        exported.index = index;
        exported.block = this;
        std::int64_t* shape = append(view.shape, view.ndim);
        std::int64_t* strides = append(view.strides, view.ndim);
        exported.managed.tensor = {view.data, device, view.ndim, type, shape, strides, 0};
        exported.managed.version = {1, 0};
        exported.managed.context = &exported;
        exported.managed.deleter = &Export::drop;
    }

    void hand_over(py::list& made) {
        for (Export& exported : exports_) {
            made[exported.index] = import_tensor(exported.managed);
            exported.is_handed_over = true;
            ++num_holders_;
        }
    }

    /// Any thread may drop a tensor, with or without the GIL. After the interpreter has ended the block is leaked.
    void release() noexcept {
        if (--num_holders_ != 0 || Py_IsInitialized() == 0) return;
        const PyGILState_STATE state = PyGILState_Ensure();
        delete this;
        PyGILState_Release(state);
    }

private:
    ~Block() = default;

    struct Export {
        dlpack::ManagedTensor managed{};
        std::size_t index = 0;
        Block* block = nullptr;
        bool is_handed_over = false;

        /// Torch calls this also for a tensor that it failed to import.
        static void drop(dlpack::ManagedTensor* managed) {
            const auto* exported = static_cast<Export*>(managed->context);
            if (exported->is_handed_over) exported->block->release();
        }
    };

    std::int64_t* append(const std::array<std::int64_t, max_dims>& numbers, int ndim) {
        const std::size_t begin = sizes_.size();
        sizes_.insert(sizes_.end(), numbers.begin(), numbers.begin() + ndim);
        return sizes_.data() + begin;
    }

    py::object memory_;
    std::atomic<std::size_t> num_holders_{1};  // 1: the maker
    // Torch has addresses of elements, so these must not grow beyond their reserved size.
    std::vector<Export> exports_;
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
    py::list made = std::move(made_);  // cleared even on failure: no tensor may be handed over twice
    for (const std::unique_ptr<Block, Release>& block : blocks_) block->hand_over(made);
    blocks_.clear();
    return made;
}

}  // namespace gsprune
