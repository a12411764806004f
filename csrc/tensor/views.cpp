#include "tensor/views.hpp"

#include <algorithm>
#include <cstring>

namespace gsprune {

std::int64_t View::numel() const noexcept {
    std::int64_t count = 1;
    for (int dim = 0; dim < ndim; ++dim) count *= shape[static_cast<std::size_t>(dim)];
    return count;
}

Order memory_order(const View& view) noexcept {
    Order order{};
    for (int dim = 0; dim < view.ndim; ++dim) order[static_cast<std::size_t>(dim)] = dim;
    const auto slower = [&view](int a, int b) {
        const auto i = static_cast<std::size_t>(a);
        const auto j = static_cast<std::size_t>(b);
        if (view.strides[i] != view.strides[j]) return view.strides[i] > view.strides[j];
        const bool a_is_single = view.shape[i] == 1;
        const bool b_is_single = view.shape[j] == 1;
        return a_is_single != b_is_single ? b_is_single : a < b;
    };
    std::sort(order.begin(), order.begin() + view.ndim, slower);
    return order;
}

bool is_dense(const View& view, const Order& order) noexcept {
    std::int64_t expected = 1;
    for (int i = view.ndim - 1; i >= 0; --i) {
        const auto dim = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
        if (view.shape[dim] == 1) continue;
        if (view.strides[dim] != expected) return false;
        expected *= view.shape[dim];
    }
    return true;
}

bool equal_layout(const View& a, const View& b) noexcept {
    return a.ndim == b.ndim && a.itemsize == b.itemsize && a.shape == b.shape && a.strides == b.strides;
}

bool same_layout(const View& a, const View& b) noexcept {
    for (std::size_t dim = 0; dim < static_cast<std::size_t>(a.ndim); ++dim) {
        if (a.shape[dim] != 1 && a.strides[dim] != b.strides[dim]) return false;
    }
    return true;
}

void set_dense_strides(View& view, const Order& order) noexcept {
    std::int64_t running = 1;
    for (int i = view.ndim - 1; i >= 0; --i) {
        const auto dim = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
        view.strides[dim] = running;
        running *= std::max<std::int64_t>(view.shape[dim], 1);
    }
}

void pack(const View& view, const Order& order, std::byte* out) noexcept {
    if (view.ndim == 0) {
        std::memcpy(out, view.data, static_cast<std::size_t>(view.itemsize));
        return;
    }
    const auto item = static_cast<std::size_t>(view.itemsize);
    const auto last = static_cast<std::size_t>(order[static_cast<std::size_t>(view.ndim - 1)]);
    const std::int64_t num_rows = view.shape[last] == 0 ? 0 : view.numel() / view.shape[last];
    std::array<std::int64_t, max_dims> index{};
    std::int64_t offset = 0;
    for (std::int64_t row = 0; row < num_rows; ++row) {
        const std::byte* source = view.data + offset * view.itemsize;
        for (std::int64_t i = 0; i < view.shape[last]; ++i) {
            std::memcpy(out, source + i * view.strides[last] * view.itemsize, item);
            out += item;
        }
        for (int i = view.ndim - 2; i >= 0; --i) {
            const auto dim = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
            offset += view.strides[dim];
            if (++index[dim] < view.shape[dim]) break;
            offset -= index[dim] * view.strides[dim];
            index[dim] = 0;
        }
    }
}

}  // namespace gsprune
