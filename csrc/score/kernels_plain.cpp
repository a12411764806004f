#include <algorithm>
#include <cstring>

#include "score/kernels.hpp"

namespace gsprune {

namespace {

constexpr int num_lanes = 2;  // SSE2 and NEON, which every x86-64 and every aarch64 machine has

#include "score/kernels.inc"

}  // namespace

PanelKernel plain_panel_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune
