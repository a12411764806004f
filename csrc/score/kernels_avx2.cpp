#include <algorithm>
#include <cstring>

#include "score/kernels.hpp"

#ifdef GSPRUNE_HAS_AVX

#include <immintrin.h>

// Callers must check that the processor has these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

namespace gsprune {

namespace {

constexpr int num_lanes = 4;

using Lanes [[gnu::vector_size(8 * num_lanes)]] = double;

inline Lanes load(const float* from) noexcept { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }

/// part * 1 + total equals total + part bit for bit. Fused operations use other ports than conversions and additions.
inline Lanes accumulate(Lanes total, Lanes part) noexcept { return _mm256_fmadd_pd(part, _mm256_set1_pd(1.0), total); }

#include "score/kernels.inc"

}  // namespace

PanelKernel avx2_panel_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
