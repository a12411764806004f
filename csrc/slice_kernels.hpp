#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "views.hpp"

namespace gsprune {

// Short enough to wait in the first-level cache until it leaves in whole lines.
constexpr std::int64_t max_segment_bytes = 2048;
constexpr std::int64_t line_bytes = 64;

/// One move of a row program. Offsets count bytes from the start of its segment.
struct CopyOp {
    std::uint32_t source;
    std::uint32_t target;
    std::uint64_t
        what;  // runs: the number of bytes; masks: which lanes of the 64 (AVX2: 32) bytes at `source` are kept
};

/// A part of a row.
struct Segment {
    std::int64_t first_op;
    std::int64_t last_op;
    std::int64_t source;  // bytes from the start of the row
    std::int64_t target;
    std::int64_t target_bytes;
};

/// A dimension outside the row.
struct OuterDim {
    std::int64_t count;             // kept positions
    std::int64_t stride;            // bytes between source positions
    const std::int64_t* positions;  // null: all of them
};

/// How to slice tensors of one layout with one pattern. A row is the memory behind one position of the outer
/// dimensions; all rows are moved by the same ops. Items are the segments of all rows, one row after another.
struct RowProgram {
    std::int64_t lane_bytes = 0;  // 0: ops are runs; else masks of lanes of this size
    std::vector<CopyOp> ops;
    std::vector<Segment> segments;
    std::array<OuterDim, max_dims> outer{};
    int num_outer = 0;
    std::int64_t num_rows = 1;
    std::int64_t row_target_bytes = 0;

    [[nodiscard]] std::int64_t num_items() const noexcept {
        return num_rows * static_cast<std::int64_t>(segments.size());
    }
};

/// Moves the items [first, last); with `stream` past the caches.
using SliceKernel = void (*)(const RowProgram&, const std::byte* source, std::byte* target, std::int64_t first,
                             std::int64_t last, bool stream) noexcept;

void plain_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                        std::int64_t last, bool stream) noexcept;
void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept;
void avx512_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                         std::int64_t last, bool stream) noexcept;

}  // namespace gsprune
