#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace gsprune {

constexpr int max_dims = 16;

/// A strided tensor in memory that somebody else owns; strides count elements and are >= 0.
struct View {
    std::byte* data = nullptr;
    int ndim = 0;
    std::int64_t itemsize = 0;
    std::array<std::int64_t, max_dims> shape{};
    std::array<std::int64_t, max_dims> strides{};

    [[nodiscard]] std::int64_t numel() const noexcept;
};

/// Dimensions from the slowest to the fastest in memory.
using Order = std::array<int, max_dims>;

/// Sorts by stride; among equal strides dimensions of size 1 come last, so that channels_last survives a width of 1.
Order memory_order(const View& view) noexcept;

/// Whether the elements fill one block without gaps or overlap.
bool is_dense(const View& view, const Order& order) noexcept;

/// Whether two views have the same sizes and strides, and elements of the same size.
bool equal_layout(const View& a, const View& b) noexcept;

/// Whether two views of the same shape address their elements in the same way.
bool same_layout(const View& a, const View& b) noexcept;

/// Gives `view` the strides of a dense tensor whose dimensions lie in `order`.
void set_dense_strides(View& view, const Order& order) noexcept;

/// Copies the elements to `out` one after another in `order`.
void pack(const View& view, const Order& order, std::byte* out) noexcept;

}  // namespace gsprune
