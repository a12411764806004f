#include <algorithm>
#include <cstring>

#include "half.hpp"
#include "score_kernels.hpp"

namespace gsprune {

namespace {

#include "score_scalar.inc"

constexpr int num_lanes = 8;

struct Lanes {
    double lane[num_lanes];
};

inline Lanes zero() noexcept { return Lanes{}; }

template <class Element>
inline Lanes load(const Element* from) noexcept {
    Lanes lanes;
    for (int i = 0; i < 8; ++i) lanes.lane[i] = load_one(from + i);
    return lanes;
}

inline void store(double* to, const Lanes& lanes) noexcept {
    for (int i = 0; i < 8; ++i) to[i] = lanes.lane[i];
}

inline Lanes add(const Lanes& a, const Lanes& b) noexcept {
    Lanes sum;
    for (int i = 0; i < 8; ++i) sum.lane[i] = a.lane[i] + b.lane[i];
    return sum;
}

inline Lanes accumulate(const Lanes& total, const Lanes& part) noexcept { return add(total, part); }

inline Lanes multiply(const Lanes& a, const Lanes& b) noexcept {
    Lanes product;
    for (int i = 0; i < 8; ++i) product.lane[i] = a.lane[i] * b.lane[i];
    return product;
}

inline Lanes absolute(const Lanes& a) noexcept {
    Lanes result;
    for (int i = 0; i < 8; ++i) result.lane[i] = __builtin_fabs(a.lane[i]);
    return result;
}

#include "score_tile.inc"

}  // namespace

TileKernel plain_tile_kernel(DType dtype, Statistic statistic) noexcept { return find_kernel(dtype, statistic); }

}  // namespace gsprune
