#include <algorithm>
#include <cstring>

#include "slice_kernels.hpp"

namespace gsprune {

namespace {

#include "slice_rows.inc"

}  // namespace

/// Programs for this kernel hold runs, and there are no stores past the caches without instructions of a kind.
void plain_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                        std::int64_t last, bool /*stream*/) noexcept {
    std::byte* next = target + first;
    for_each_piece(program, source, first, last,
                   [&next](const std::byte* run, std::int64_t skipped, std::int64_t, std::int64_t num_bytes) {
                       std::memcpy(next, run + skipped, static_cast<std::size_t>(num_bytes));
                       next += num_bytes;
                   });
}

}  // namespace gsprune
