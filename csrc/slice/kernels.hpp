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

/// Where a stretch of a row comes from; it reaches up to the target of the next piece.
struct Piece {
    std::int64_t source;  // bytes from the start of the row
    std::int64_t target;  // lanes from the start of the row
};

/// A dimension outside the row.
struct OuterDim {
    std::int64_t count;             // kept positions
    std::int64_t stride;            // bytes between source positions
    const std::int64_t* positions;  // null: all of them
};

/// How to slice tensors of one layout with one pattern. A row is the memory behind one position of the outer
/// dimensions; what is kept of it is the same in all rows.
struct RowProgram {
    std::int64_t lane_bytes = 1;  // what is moved together: 1 or 4
    /// Per lane of the target row where it comes from, in lanes from the source of its piece, strictly ascending
    /// within a piece. Empty: pieces are unbroken runs of bytes.
    std::vector<std::uint16_t> positions;
    std::vector<Piece> pieces;  // at last one that only says where the row ends
    std::int64_t row_lanes = 0;
    std::array<OuterDim, max_dims> outer{};
    int num_outer = 0;
    std::int64_t source_bytes = 0;  // from the first to behind the last byte of the source tensor
};

/// Throws std::bad_alloc.
RowProgram make_program(const View& source, const SlicePattern& pattern, Isa isa);

/// Writes the bytes [first, last) of the target, which is not read. Inside the target both lie between lanes; `stream`
/// lets whole lines go past the caches.
using SliceKernel = void (*)(const RowProgram&, const std::byte* source, std::byte* target, std::int64_t first,
                             std::int64_t last, bool stream) noexcept;

void plain_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                        std::int64_t last, bool stream) noexcept;
#ifdef GSPRUNE_HAS_AVX
void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept;
#endif

}  // namespace gsprune
