#include <algorithm>
#include <cstring>

#include "slice_kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

// Up to the end of the file: nothing below may be called without a check for these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi2")
#endif

namespace gsprune {

namespace {

template <std::int64_t lane_bytes>
inline __m512i compress(std::uint64_t mask, const std::byte* source) noexcept {
    if constexpr (lane_bytes == 4) {
        const auto lanes = static_cast<__mmask16>(mask);
        return _mm512_maskz_compress_epi32(lanes, _mm512_maskz_loadu_epi32(lanes, source));
    } else if constexpr (lane_bytes == 2) {
        const auto lanes = static_cast<__mmask32>(mask);
        return _mm512_maskz_compress_epi16(lanes, _mm512_maskz_loadu_epi16(lanes, source));
    } else {
        return _mm512_maskz_compress_epi8(mask, _mm512_maskz_loadu_epi8(mask, source));
    }
}

/// Lanes that go are not loaded: they may lie past the end of the tensor.
template <std::int64_t lane_bytes, class Writer>
inline void copy_lanes(const CopyOp* op, const CopyOp* last, const std::byte* source, std::byte* target,
                       Writer& writer) noexcept {
    for (; op != last; ++op) {
        _mm512_storeu_si512(target + op->target, compress<lane_bytes>(op->what, source + op->source));
        writer.composed(op->target);
    }
}

template <class Writer>
inline void copy_masked(std::int64_t lane_bytes, const CopyOp* op, const CopyOp* last, const std::byte* source,
                        std::byte* target, Writer& writer) noexcept {
    if (lane_bytes == 4) return copy_lanes<4>(op, last, source, target, writer);
    if (lane_bytes == 2) return copy_lanes<2>(op, last, source, target, writer);
    return copy_lanes<1>(op, last, source, target, writer);
}

inline void copy_line(std::byte* target, const std::byte* source) noexcept {
    _mm512_storeu_si512(target, _mm512_loadu_si512(source));
}

inline void stream_lines(std::byte* target, const std::byte* source, std::int64_t num_bytes) noexcept {
    for (std::int64_t i = 0; i < num_bytes; i += line_bytes) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(target + i), _mm512_loadu_si512(source + i));
    }
}

inline void fence() noexcept { _mm_sfence(); }

#include "slice_items.inc"

}  // namespace

void avx512_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                         std::int64_t last, bool stream) noexcept {
    copy_items(program, source, target, first, last, stream);
}

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

namespace gsprune {

void avx512_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                         std::int64_t last, bool stream) noexcept {
    plain_slice_kernel(program, source, target, first, last, stream);
}

}  // namespace gsprune

#endif
