#include <algorithm>
#include <cstring>

#include "half.hpp"
#include "score_kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

// Up to the end of the file: nothing below may be called without a check for these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,f16c")
#endif

namespace gsprune {

namespace {

#include "score_scalar.inc"

using Lanes = __m512d;
constexpr int num_lanes = 8;

inline __m128i load_bits(const void* from) noexcept { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

// The masked form with a full mask: GCC 12 warns about its own header where it meets the plain one.
inline Lanes widen(__m256 values) noexcept { return _mm512_maskz_cvtps_pd(0xFF, values); }

inline Lanes zero() noexcept { return _mm512_setzero_pd(); }
inline Lanes load(const double* from) noexcept { return _mm512_loadu_pd(from); }

/// Halves straight from memory: to take a register apart costs as much as to convert it.
inline Lanes load(const float* from) noexcept {
    const __m256d low = _mm256_cvtps_pd(_mm_loadu_ps(from));
    const __m256d high = _mm256_cvtps_pd(_mm_loadu_ps(from + 4));
    return _mm512_maskz_insertf64x4(0xFF, _mm512_castpd256_pd512(low), high, 1);
}

inline Lanes load(const Bfloat16* from) noexcept {
    return widen(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_bits(from)), 16)));
}

inline Lanes load(const Float16* from) noexcept { return widen(_mm256_cvtph_ps(load_bits(from))); }
inline void store(double* to, Lanes lanes) noexcept { _mm512_storeu_pd(to, lanes); }
inline Lanes add(Lanes a, Lanes b) noexcept { return _mm512_add_pd(a, b); }

/// part * 1 + total has the bits of total + part; conversions and adds share two pipes, fused operations have others.
inline Lanes accumulate(Lanes total, Lanes part) noexcept { return _mm512_fmadd_pd(part, _mm512_set1_pd(1.0), total); }

inline Lanes multiply(Lanes a, Lanes b) noexcept { return _mm512_mul_pd(a, b); }

inline Lanes absolute(Lanes a) noexcept {
    // Not _mm512_andnot_pd: GCC 12 warns about its own header.
    const __m512i magnitude = _mm512_set1_epi64(0x7FFFFFFFFFFFFFFF);
    return _mm512_castsi512_pd(_mm512_and_epi64(_mm512_castpd_si512(a), magnitude));
}

#include "score_tile.inc"

}  // namespace

TileKernel avx512_tile_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

namespace gsprune {

TileKernel avx512_tile_kernel(DType dtype, Statistic statistic) noexcept { return plain_tile_kernel(dtype, statistic); }

}  // namespace gsprune

#endif
