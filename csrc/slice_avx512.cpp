#include <algorithm>
#include <cstring>

#include "slice_kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

// Up to the end of the file: nothing below may be called without a check for these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi")
#endif

namespace gsprune {

namespace {

constexpr std::int64_t vector_bytes = 64;
using Vector = __m512i;

inline Vector zero() noexcept { return _mm512_setzero_si512(); }

inline void store(std::byte* target, Vector vector) noexcept { _mm512_storeu_si512(target, vector); }

inline void stream(std::byte* target, Vector vector) noexcept {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), vector);
}

inline std::uint64_t low_bits(std::int64_t count) noexcept {
    return count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << static_cast<std::uint64_t>(count)) - 1;
}

/// Writes the bytes [first, last) of a vector.
inline void store_some(std::byte* target, Vector vector, std::int64_t first, std::int64_t last) noexcept {
    _mm512_mask_storeu_epi8(target, low_bits(last) & ~low_bits(first), vector);
}

// As with AVX2 (slice_avx2.cpp), where it was measured.
inline void prefetch(const std::byte* source) noexcept { _mm_prefetch(source, _MM_HINT_NTA); }

inline void fence() noexcept { _mm_sfence(); }

// Where nothing is masked, masks of ones stand nevertheless: the intrinsics without a mask start from an undefined
// vector, which GCC 12 takes for a mistake.

/// Vectors as lanes. Offsets are positions less the first of them; what a mask leaves out is not read.
template <std::int64_t lane_bytes>
struct Lanes;

template <>
struct Lanes<8> {
    using Mask = __mmask8;
    static Vector offsets(const std::uint16_t* positions) noexcept {
        const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(positions));
        return widen(_mm_sub_epi16(narrow, _mm_broadcastw_epi16(narrow)));
    }
    static Vector offsets(Mask mask, const std::uint16_t* positions, std::uint16_t first) noexcept {
        return widen(_mm_sub_epi16(_mm_maskz_loadu_epi16(mask, positions), _mm_set1_epi16(static_cast<short>(first))));
    }
    static Vector all(std::int64_t value) noexcept { return _mm512_set1_epi64(value); }
    static Mask below(Vector a, std::int64_t b) noexcept { return _mm512_cmplt_epu64_mask(a, all(b)); }
    static Vector less(Mask mask, Vector a, std::int64_t b) noexcept {
        return _mm512_mask_sub_epi64(a, mask, a, all(b));
    }
    static Vector load(Vector before, Mask mask, const std::byte* from) noexcept {
        return _mm512_mask_loadu_epi64(before, mask, from);
    }
    static Vector pick(Vector a, Vector order, Vector b) noexcept { return _mm512_permutex2var_epi64(a, order, b); }
    static Vector blend(Mask mask, Vector a, Vector b) noexcept { return _mm512_mask_blend_epi64(mask, a, b); }

private:
    static Vector widen(__m128i narrow) noexcept { return _mm512_maskz_cvtepu16_epi64(0xFF, narrow); }
};

template <>
struct Lanes<4> {
    using Mask = __mmask16;
    static Vector offsets(const std::uint16_t* positions) noexcept {
        const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(positions));
        return widen(_mm256_sub_epi16(narrow, _mm256_broadcastw_epi16(_mm256_castsi256_si128(narrow))));
    }
    static Vector offsets(Mask mask, const std::uint16_t* positions, std::uint16_t first) noexcept {
        const __m256i narrow = _mm256_maskz_loadu_epi16(mask, positions);
        return widen(_mm256_sub_epi16(narrow, _mm256_set1_epi16(static_cast<short>(first))));
    }
    static Vector all(std::int64_t value) noexcept { return _mm512_set1_epi32(static_cast<int>(value)); }
    static Mask below(Vector a, std::int64_t b) noexcept { return _mm512_cmplt_epu32_mask(a, all(b)); }
    static Vector less(Mask mask, Vector a, std::int64_t b) noexcept {
        return _mm512_mask_sub_epi32(a, mask, a, all(b));
    }
    static Vector load(Vector before, Mask mask, const std::byte* from) noexcept {
        return _mm512_mask_loadu_epi32(before, mask, from);
    }
    static Vector pick(Vector a, Vector order, Vector b) noexcept { return _mm512_permutex2var_epi32(a, order, b); }
    static Vector blend(Mask mask, Vector a, Vector b) noexcept { return _mm512_mask_blend_epi32(mask, a, b); }

private:
    static Vector widen(__m256i narrow) noexcept { return _mm512_maskz_cvtepu16_epi32(0xFFFF, narrow); }
};

template <>
struct Lanes<2> {
    using Mask = __mmask32;
    static Vector offsets(const std::uint16_t* positions) noexcept {
        return less(~Mask{0}, _mm512_loadu_si512(positions), positions[0]);
    }
    static Vector offsets(Mask mask, const std::uint16_t* positions, std::uint16_t first) noexcept {
        return less(mask, _mm512_maskz_loadu_epi16(mask, positions), first);
    }
    static Vector all(std::int64_t value) noexcept { return _mm512_set1_epi16(static_cast<short>(value)); }
    static Mask below(Vector a, std::int64_t b) noexcept { return _mm512_cmplt_epu16_mask(a, all(b)); }
    static Vector less(Mask mask, Vector a, std::int64_t b) noexcept {
        return _mm512_mask_sub_epi16(a, mask, a, all(b));
    }
    static Vector load(Vector before, Mask mask, const std::byte* from) noexcept {
        return _mm512_mask_loadu_epi16(before, mask, from);
    }
    static Vector pick(Vector a, Vector order, Vector b) noexcept { return _mm512_permutex2var_epi16(a, order, b); }
    static Vector blend(Mask mask, Vector a, Vector b) noexcept { return _mm512_mask_blend_epi16(mask, a, b); }
};

/// Offsets of 255 and more are 255.
template <>
struct Lanes<1> {
    using Mask = __mmask64;
    static Vector offsets(const std::uint16_t* positions) noexcept { return offsets(~Mask{0}, positions, *positions); }
    static Vector offsets(Mask mask, const std::uint16_t* positions, std::uint16_t first) noexcept {
        const Vector low = Lanes<2>::offsets(static_cast<__mmask32>(mask), positions, first);
        const Vector high = Lanes<2>::offsets(static_cast<__mmask32>(mask >> 32U), positions + 32, first);
        const __m256i low_half = _mm512_maskz_cvtusepi16_epi8(~__mmask32{0}, low);
        const __m256i high_half = _mm512_maskz_cvtusepi16_epi8(~__mmask32{0}, high);
        return _mm512_maskz_inserti64x4(0xFF, _mm512_castsi256_si512(low_half), high_half, 1);
    }
    static Vector all(std::int64_t value) noexcept { return _mm512_set1_epi8(static_cast<char>(value)); }
    static Mask below(Vector a, std::int64_t b) noexcept { return _mm512_cmplt_epu8_mask(a, all(b)); }
    static Vector less(Mask mask, Vector a, std::int64_t b) noexcept {
        return _mm512_mask_sub_epi8(a, mask, a, all(b));
    }
    static Vector load(Vector before, Mask mask, const std::byte* from) noexcept {
        return _mm512_mask_loadu_epi8(before, mask, from);
    }
    static Vector pick(Vector a, Vector order, Vector b) noexcept { return _mm512_permutex2var_epi8(a, order, b); }
    static Vector blend(Mask mask, Vector a, Vector b) noexcept { return _mm512_mask_blend_epi8(mask, a, b); }
};

/// Lanes at positions that strictly ascend.
template <std::int64_t lane_bytes>
class LanePicker {
public:
    /// The tensor ends at `end`.
    LanePicker(const std::byte* source, const std::byte* end, const std::uint16_t* positions) noexcept
        : source_(source), positions_(positions), last_pair_((end - source) / lane_bytes - 2 * lanes) {}

    [[nodiscard]] const std::byte* place(std::int64_t i) const noexcept { return source_ + positions_[i] * lane_bytes; }

    /// Most vectors are picked out of the two that begin with their first lane.
    [[nodiscard]] Vector whole(std::int64_t i) const noexcept {
        const bool is_pair = positions_[i + lanes - 1] - positions_[i] < 2 * lanes && positions_[i] <= last_pair_;
        if (!is_pair) return whole_afar(i);
        const std::byte* front = place(i);
        return L::pick(_mm512_loadu_si512(front), L::offsets(positions_ + i), _mm512_loadu_si512(front + vector_bytes));
    }

    /// The others are picked out of the one that begins with their first lane and the one that ends with their last.
    /// So nothing outside these is read. What lies between is loaded one by one.
    [[nodiscard]] Vector some(std::int64_t i, std::int64_t count, std::int64_t at, Vector before) const noexcept {
        const std::int64_t span = positions_[i + count - 1] - positions_[i];
        const auto wanted = static_cast<Mask>(low_bits(count) << static_cast<std::uint64_t>(at));
        const Vector offsets = L::offsets(wanted, positions_ + i - at, positions_[i]);
        if (span < lanes) {
            const Vector front = L::load(zero(), static_cast<Mask>(low_bits(span + 1)), place(i));
            return L::blend(wanted, before, L::pick(front, offsets, front));
        }
        const auto late = static_cast<Mask>(wanted & ~L::below(offsets, lanes));
        const std::byte* back = place(i) + (span - lanes + 1) * lane_bytes;
        const Vector order = L::less(late, offsets, span - (2 * lanes - 1));
        before = L::blend(wanted, before, L::pick(_mm512_loadu_si512(place(i)), order, _mm512_loadu_si512(back)));
        if (span < 2 * lanes) return before;
        if (lane_bytes == 1 && span >= 255) return load_each(wanted, i - at, before);
        return load_each(late & L::below(offsets, span - lanes + 1), i - at, before);
    }

private:
    using L = Lanes<lane_bytes>;
    using Mask = typename L::Mask;
    static constexpr std::int64_t lanes = vector_bytes / lane_bytes;

    [[nodiscard, gnu::noinline]] Vector whole_afar(std::int64_t i) const noexcept { return some(i, lanes, 0, zero()); }

    [[nodiscard]] Vector load_each(std::uint64_t wanted, std::int64_t i, Vector before) const noexcept {
        for (; wanted != 0; wanted &= wanted - 1) {
            const auto only = static_cast<Mask>(wanted & -wanted);
            const std::int64_t lane = __builtin_ctzll(wanted);
            before = L::load(before, only, place(i + lane) - lane * lane_bytes);
        }
        return before;
    }

    const std::byte* source_;
    const std::uint16_t* positions_;
    std::int64_t last_pair_;  // position up to which two vectors lie in the tensor
};

/// Bytes that lie one after another.
struct RunPicker {
    const std::byte* source;

    [[nodiscard]] const std::byte* place(std::int64_t i) const noexcept { return source + i; }
    [[nodiscard]] Vector whole(std::int64_t i) const noexcept { return _mm512_loadu_si512(source + i); }
    [[nodiscard]] Vector some(std::int64_t i, std::int64_t count, std::int64_t at, Vector before) const noexcept {
        return _mm512_mask_loadu_epi8(before, low_bits(count) << static_cast<std::uint64_t>(at), source + i - at);
    }
};

#include "slice_rows.inc"

#include "slice_lines.inc"

}  // namespace

void avx512_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                         std::int64_t last, bool stream) noexcept {
    if (program.positions.empty()) return write_runs(program, source, target, first, last, stream);
    switch (program.lane_bytes) {
        case 8:
            return write_lanes<8>(program, source, target, first, last, stream);
        case 4:
            return write_lanes<4>(program, source, target, first, last, stream);
        case 2:
            return write_lanes<2>(program, source, target, first, last, stream);
        default:
            return write_lanes<1>(program, source, target, first, last, stream);
    }
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
