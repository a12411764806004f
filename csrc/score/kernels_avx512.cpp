#include <algorithm>
#include <cstring>

#include "score/kernels.hpp"

#ifdef GSPRUNE_HAS_AVX

#include <immintrin.h>

// Callers must check that the processor has these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2")
#endif

namespace gsprune {

namespace {

constexpr int num_lanes = 8;

using Lanes [[gnu::vector_size(8 * num_lanes)]] = double;

/// Loads each half from memory: splitting a register costs as much as converting it.
inline Lanes load(const float* from) noexcept {
    const __m256d low = _mm256_cvtps_pd(_mm_loadu_ps(from));
    const __m256d high = _mm256_cvtps_pd(_mm_loadu_ps(from + 4));
    // GCC 12 warns about its own header for the form without a mask.
    return _mm512_maskz_insertf64x4(0xFF, _mm512_castpd256_pd512(low), high, 1);
}

/// part * 1 + total equals total + part bit for bit. Fused operations use other ports than conversions and additions.
inline Lanes accumulate(Lanes total, Lanes part) noexcept { return _mm512_fmadd_pd(part, _mm512_set1_pd(1.0), total); }

#include "score/kernels.inc"

}  // namespace

PanelKernel avx512_panel_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
