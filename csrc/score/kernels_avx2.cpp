#include <algorithm>
#include <cstring>

#include "score/kernels.hpp"

#ifdef GSPRUNE_HAS_AVX

#include <immintrin.h>

// Callers must check that the processor has these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

namespace gsprune {

namespace {

constexpr int num_lanes = 4;

using Lanes [[gnu::vector_size(8 * num_lanes)]] = double;

inline Lanes load(const float* from) noexcept { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }

#include "score/kernels.inc"

}  // namespace

PanelKernel avx2_panel_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
