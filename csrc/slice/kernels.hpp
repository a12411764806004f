#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "machine/isa.hpp"
#include "slice/slice.hpp"
#include "tensor/views.hpp"

namespace gsprune {

constexpr std::int64_t line_bytes = 64;

/// A part of a row; it ends where the next piece begins in the target.
struct Piece {
    std::int64_t source;  // bytes from the start of the row
    std::int64_t target;  // lanes from the start of the row
};

/// A dimension outside the row.
struct OuterDim {
    std::int64_t count;             // kept positions
    std::int64_t stride;            // bytes between source positions
    const std::int64_t* positions;  // null: all
};

/// Instructions to slice tensors of one layout with one pattern. A row is the memory at one position of the outer
/// dimensions. All rows keep the same positions.
struct RowProgram {
    std::int64_t lane_bytes = 1;  // size of the elements to move: 1 or 4
    /// Source lane of each target lane, counted from the source of its piece, strictly ascending within a piece. Empty
    /// if the pieces are contiguous runs of bytes.
    std::vector<std::uint16_t> positions;
    std::vector<Piece> pieces;  // the last one marks the end of the row
    std::int64_t row_lanes = 0;
    std::array<OuterDim, max_dims> outer{};
    int num_outer = 0;
    std::int64_t source_bytes = 0;  // extent of the source tensor
};

/// Throws std::bad_alloc.
RowProgram make_program(const View& source, const SlicePattern& pattern, Isa isa);

/// Writes the bytes [first, last) of the target; both are multiples of the lane size. `stream` allows non-temporal
/// stores.
using SliceKernel = void (*)(const RowProgram&, const std::byte* source, std::byte* target, std::int64_t first,
                             std::int64_t last, bool stream) noexcept;

void plain_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                        std::int64_t last, bool stream) noexcept;
#ifdef GSPRUNE_HAS_AVX
void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept;
#endif

}  // namespace gsprune
