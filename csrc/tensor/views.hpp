#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace gsprune {

constexpr int max_dims = 16;

/// A strided tensor in memory that it does not own; strides count elements and are >= 0.
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

/// Dimensions sorted by stride. On a tie, size 1 comes last, so that channels_last survives a width of 1.
Order memory_order(const View& view) noexcept;

/// True if the elements fill one block without gaps or overlap.
bool is_dense(const View& view, const Order& order) noexcept;

/// True if two views have equal sizes, strides and element sizes.
bool equal_layout(const View& a, const View& b) noexcept;

/// True if two views of the same shape have equal strides, except along dimensions of size 1.
bool equivalent_layout(const View& a, const View& b) noexcept;

/// Gives `view` the strides of a dense tensor with the dimensions in `order`.
void set_dense_strides(View& view, const Order& order) noexcept;

}  // namespace gsprune
