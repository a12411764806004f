#include <algorithm>
#include <cstring>

#include "score/kernels.hpp"

namespace gsprune {

namespace {

constexpr int num_lanes = 2;  // SSE2 and NEON, available on every x86-64 and aarch64 machine

using Lanes [[gnu::vector_size(8 * num_lanes)]] = double;

inline Lanes load(const float* from) noexcept {
    return Lanes{static_cast<double>(from[0]), static_cast<double>(from[1])};
}

#include "score/kernels.inc"

}  // namespace

PanelKernel plain_panel_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune
