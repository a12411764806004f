#include <algorithm>
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

using Lanes = __m256d;
constexpr int num_lanes = 4;

inline Lanes zero() noexcept { return _mm256_setzero_pd(); }
inline Lanes load(const double* from) noexcept { return _mm256_loadu_pd(from); }
inline Lanes load(const float* from) noexcept { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }

inline __m128i load_bits(const void* from) noexcept { return _mm_loadl_epi64(static_cast<const __m128i*>(from)); }

inline Lanes load(const Bfloat16* from) noexcept {
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(load_bits(from)), 16)));
}

inline Lanes load(const Float16* from) noexcept { return _mm256_cvtps_pd(_mm_cvtph_ps(load_bits(from))); }

inline void store(double* to, Lanes lanes) noexcept { _mm256_storeu_pd(to, lanes); }

inline Lanes add(Lanes a, Lanes b) noexcept { return _mm256_add_pd(a, b); }

/// part * 1 + total has the bits of total + part; conversions and adds share two pipes, fused operations have others.
inline Lanes accumulate(Lanes total, Lanes part) noexcept { return _mm256_fmadd_pd(part, _mm256_set1_pd(1.0), total); }

inline Lanes multiply(Lanes a, Lanes b) noexcept { return _mm256_mul_pd(a, b); }

inline Lanes absolute(Lanes a) noexcept { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }

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
