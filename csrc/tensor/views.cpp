#include "tensor/views.hpp"

#include <algorithm>

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

bool equivalent_layout(const View& a, const View& b) noexcept {
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

}  // namespace gsprune
