#include <algorithm>
#include <cstring>

#include "slice/kernels.hpp"

namespace gsprune {

namespace {

#include "slice/pieces.inc"

/// Copies in lines of a fixed size: `memcpy` calls for 2 KB read memory at two thirds of the speed.
std::byte* copy_run(const std::byte* source, std::byte* target, std::int64_t num_bytes) noexcept {
    std::int64_t i = 0;
    for (; i + line_bytes <= num_bytes; i += line_bytes) {
        std::memcpy(target + i, source + i, static_cast<std::size_t>(line_bytes));
    }
    std::memcpy(target + i, source + i, static_cast<std::size_t>(num_bytes - i));
    return target + num_bytes;
}

}  // namespace

/// Programs for this kernel hold only runs. Portable code has no non-temporal stores, so `stream` is ignored.
void plain_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                        std::int64_t last, bool /*stream*/) noexcept {
    std::byte* next = target + first;
    for_each_piece(program, source, first, last,
                   [&next](const std::byte* run, std::int64_t skipped, std::int64_t, std::int64_t num_bytes) {
                       next = copy_run(run + skipped, next, num_bytes);
                   });
}

}  // namespace gsprune
