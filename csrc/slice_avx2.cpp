#include <algorithm>
#include <cstring>

#include "slice_kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

// Up to the end of the file: nothing below may be called without a check for these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

namespace gsprune {

namespace {

/// Per mask of eight lanes: which lanes to load, and where the kept ones come from.
struct Shuffles {
    alignas(32) std::int32_t load[256][8];
    alignas(32) std::int32_t order[256][8];
};

constexpr Shuffles make_shuffles() noexcept {
    Shuffles shuffles{};
    for (int mask = 0; mask < 256; ++mask) {
        int num_kept = 0;
        for (int lane = 0; lane < 8; ++lane) {
            if (((mask >> lane) & 1) == 0) continue;
            shuffles.load[mask][lane] = -1;
            shuffles.order[mask][num_kept] = lane;
            ++num_kept;
        }
    }
    return shuffles;
}

constexpr Shuffles shuffles = make_shuffles();

/// Lanes of 4 bytes, eight to an op. Lanes that go are not loaded: they may lie past the end of the tensor.
template <class Writer>
inline void copy_masked(std::int64_t, const CopyOp* op, const CopyOp* last, const std::byte* source, std::byte* target,
                        Writer& writer) noexcept {
    for (; op != last; ++op) {
        const __m256i load = _mm256_load_si256(reinterpret_cast<const __m256i*>(shuffles.load[op->what]));
        const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(shuffles.order[op->what]));
        const __m256i lanes = _mm256_maskload_epi32(reinterpret_cast<const int*>(source + op->source), load);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + op->target), _mm256_permutevar8x32_epi32(lanes, order));
        writer.composed(op->target);
    }
}

inline void copy_line(std::byte* target, const std::byte* source) noexcept {
    for (std::int64_t i = 0; i < line_bytes; i += 32) {
        const __m256i half_line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + i));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + i), half_line);
    }
}

inline void stream_lines(std::byte* target, const std::byte* source, std::int64_t num_bytes) noexcept {
    for (std::int64_t i = 0; i < num_bytes; i += 32) {
        const __m256i half_line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + i));
        _mm256_stream_si256(reinterpret_cast<__m256i*>(target + i), half_line);
    }
}

inline void fence() noexcept { _mm_sfence(); }

#include "slice_items.inc"

}  // namespace

void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept {
    copy_items(program, source, target, first, last, stream);
}

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

namespace gsprune {

void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept {
    plain_slice_kernel(program, source, target, first, last, stream);
}

}  // namespace gsprune

#endif
