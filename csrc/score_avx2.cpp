#include <cstring>

#include "half.hpp"
#include "score_kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

// Up to the end of the file: nothing below may be called without a check for these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c,fma")
#endif

namespace gsprune {

namespace {

#include "score_scalar.inc"

struct Lanes {
    __m256d low;
    __m256d high;
};

inline Lanes widen(__m256 values) noexcept {
    return {_mm256_cvtps_pd(_mm256_castps256_ps128(values)), _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1))};
}

inline Lanes zero() noexcept { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
inline Lanes load(const double* from) noexcept { return {_mm256_loadu_pd(from), _mm256_loadu_pd(from + 4)}; }

/// Halves straight from memory: to take a register apart costs as much as to convert it.
inline Lanes load(const float* from) noexcept {
    return {_mm256_cvtps_pd(_mm_loadu_ps(from)), _mm256_cvtps_pd(_mm_loadu_ps(from + 4))};
}

inline __m128i load_bits(const void* from) noexcept { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

inline Lanes load(const Bfloat16* from) noexcept {
    return widen(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_bits(from)), 16)));
}

inline Lanes load(const Float16* from) noexcept { return widen(_mm256_cvtph_ps(load_bits(from))); }

inline void store(double* to, Lanes lanes) noexcept {
    _mm256_storeu_pd(to, lanes.low);
    _mm256_storeu_pd(to + 4, lanes.high);
}

inline Lanes add(Lanes a, Lanes b) noexcept { return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)}; }

/// part * 1 + total has the bits of total + part; conversions and adds share two pipes, fused operations have others.
inline Lanes accumulate(Lanes total, Lanes part) noexcept {
    const __m256d one = _mm256_set1_pd(1.0);
    return {_mm256_fmadd_pd(part.low, one, total.low), _mm256_fmadd_pd(part.high, one, total.high)};
}

inline Lanes multiply(Lanes a, Lanes b) noexcept {
    return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
}

inline Lanes absolute(Lanes a) noexcept {
    const __m256d sign = _mm256_set1_pd(-0.0);
    return {_mm256_andnot_pd(sign, a.low), _mm256_andnot_pd(sign, a.high)};
}

#include "score_tile.inc"

}  // namespace

TileKernel avx2_tile_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

namespace gsprune {

TileKernel avx2_tile_kernel(DType dtype, Statistic statistic) noexcept { return plain_tile_kernel(dtype, statistic); }

}  // namespace gsprune

#endif
