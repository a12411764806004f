#include <algorithm>
#include <cstring>

#include "score/kernels.hpp"

#ifdef GSPRUNE_HAS_AVX

// Nothing below may be called without a check for these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2")
#endif

namespace gsprune {

namespace {

constexpr int num_lanes = 8;

#include "score/kernels.inc"

}  // namespace

PanelKernel avx512_panel_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
