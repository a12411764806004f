#include <algorithm>
#include <cstring>

#include "slice_kernels.hpp"

namespace gsprune {

namespace {

/// Never called: programs for this kernel hold runs.
template <class Writer>
inline void copy_masked(std::int64_t, const CopyOp*, const CopyOp*, const std::byte*, std::byte*, Writer&) noexcept {}

inline void copy_line(std::byte* target, const std::byte* source) noexcept {
    std::memcpy(target, source, static_cast<std::size_t>(line_bytes));
}

inline void stream_lines(std::byte* target, const std::byte* source, std::int64_t num_bytes) noexcept {
    std::memcpy(target, source, static_cast<std::size_t>(num_bytes));
}

inline void fence() noexcept {}

#include "slice_items.inc"

}  // namespace

void plain_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                        std::int64_t last, bool stream) noexcept {
    copy_items(program, source, target, first, last, stream);
}

}  // namespace gsprune
