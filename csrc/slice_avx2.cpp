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

constexpr std::int64_t vector_bytes = 32;
using Vector = __m256i;

inline Vector zero() noexcept { return _mm256_setzero_si256(); }

inline Vector load(const std::byte* source) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
}

inline void store(std::byte* target, Vector vector) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), vector);
}

inline void stream(std::byte* target, Vector vector) noexcept {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target), vector);
}

/// Writes the bytes [first, last) of a vector.
inline void store_some(std::byte* target, Vector vector, std::int64_t first, std::int64_t last) noexcept {
    alignas(vector_bytes) std::byte buffer[vector_bytes];
    store(buffer, vector);
    std::memcpy(target + first, buffer + first, static_cast<std::size_t>(last - first));
}

inline void prefetch(const std::byte* source) noexcept { _mm_prefetch(source, _MM_HINT_T0); }

inline void fence() noexcept { _mm_sfence(); }

template <std::int64_t lane_bytes>
class LanePicker;

/// Lanes at positions that strictly ascend. A vector of them is picked out of two: the one that begins with the first
/// lane and the one that ends with the last. So nothing outside these two lanes is read.
template <>
class LanePicker<4> {
public:
    LanePicker(const std::byte* source, const std::byte* /*end*/, const std::uint16_t* positions) noexcept
        : source_(source), positions_(positions) {}

    [[nodiscard]] const std::byte* place(std::int64_t i) const noexcept { return source_ + positions_[i] * 4; }

    [[nodiscard]] Vector whole(std::int64_t i) const noexcept {
        const int span = positions_[i + lanes - 1] - positions_[i];
        const Vector offsets = offsets_from(i);
        if (span >= 2 * lanes && reach_between(offsets, span)) return one_by_one(i, lanes, 0, zero());
        return pick_pair(i, offsets, span);
    }

    [[nodiscard]] Vector some(std::int64_t i, std::int64_t count, std::int64_t at, Vector before) const noexcept {
        const int span = positions_[i + count - 1] - positions_[i];
        const Vector offsets = offsets_from(i);  // those past `count` do not matter
        if (span >= 2 * lanes && reach_between(offsets, span)) return one_by_one(i, count, at, before);
        const Vector picked = span < lanes ? pick_near(i, offsets, span) : pick_pair(i, offsets, span);
        const Vector turn = _mm256_sub_epi32(indices(), _mm256_set1_epi32(static_cast<int>(at)));
        const Vector negative = _mm256_srai_epi32(turn, 31);
        const Vector wanted =
            _mm256_andnot_si256(negative, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), turn));
        return _mm256_blendv_epi8(before, _mm256_permutevar8x32_epi32(picked, turn), wanted);
    }

private:
    static constexpr int lanes = 8;

    static Vector indices() noexcept { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

    /// Positions less the first, of eight lanes: there are some behind the end of every table.
    [[nodiscard]] Vector offsets_from(std::int64_t i) const noexcept {
        const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(positions_ + i));
        return _mm256_cvtepu16_epi32(_mm_sub_epi16(narrow, _mm_broadcastw_epi16(narrow)));
    }

    /// Whether lanes lie between the two vectors.
    static bool reach_between(Vector offsets, int span) noexcept {
        const Vector late = _mm256_cmpgt_epi32(offsets, _mm256_set1_epi32(lanes - 1));
        const Vector early = _mm256_cmpgt_epi32(_mm256_set1_epi32(span - (lanes - 1)), offsets);
        return _mm256_testz_si256(late, early) == 0;
    }

    [[nodiscard]] Vector pick_pair(std::int64_t i, Vector offsets, int span) const noexcept {
        const Vector late = _mm256_cmpgt_epi32(offsets, _mm256_set1_epi32(lanes - 1));
        const Vector front = _mm256_permutevar8x32_epi32(load(place(i)), offsets);
        const Vector in_back = _mm256_sub_epi32(offsets, _mm256_set1_epi32(span - (lanes - 1)));
        const Vector back = _mm256_permutevar8x32_epi32(load(place(i) + (span - (lanes - 1)) * 4), in_back);
        return _mm256_blendv_epi8(front, back, late);
    }

    /// The first and the last lane lie within one vector, which may reach past the end of the tensor.
    [[nodiscard]] Vector pick_near(std::int64_t i, Vector offsets, int span) const noexcept {
        const Vector loaded = _mm256_cmpgt_epi32(_mm256_set1_epi32(span + 1), indices());
        const Vector front = _mm256_maskload_epi32(reinterpret_cast<const int*>(place(i)), loaded);
        return _mm256_permutevar8x32_epi32(front, offsets);
    }

    [[nodiscard]] Vector one_by_one(std::int64_t i, std::int64_t count, std::int64_t at, Vector before) const noexcept {
        alignas(vector_bytes) std::byte buffer[vector_bytes];
        store(buffer, before);
        for (std::int64_t lane = 0; lane < count; ++lane) std::memcpy(buffer + (at + lane) * 4, place(i + lane), 4);
        return load(buffer);
    }

    const std::byte* source_;
    const std::uint16_t* positions_;
};

/// Bytes that lie one after another.
struct RunPicker {
    const std::byte* source;

    [[nodiscard]] const std::byte* place(std::int64_t i) const noexcept { return source + i; }
    [[nodiscard]] Vector whole(std::int64_t i) const noexcept { return load(source + i); }
    [[nodiscard]] Vector some(std::int64_t i, std::int64_t count, std::int64_t at, Vector before) const noexcept {
        alignas(vector_bytes) std::byte buffer[vector_bytes];
        store(buffer, before);
        std::memcpy(buffer + at, source + i, static_cast<std::size_t>(count));
        return load(buffer);
    }
};

#include "slice_rows.inc"

#include "slice_lines.inc"

}  // namespace

void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept {
    if (program.positions.empty()) return write_runs(program, source, target, first, last, stream);
    write_lanes<4>(program, source, target, first, last, stream);
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
