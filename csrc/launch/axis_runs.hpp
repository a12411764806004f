#pragma once

#include <cstdint>
#include <vector>

#include "tensor/views.hpp"

namespace gsprune {

/// One axis of interest, or the merged dimensions between two of them.
struct AxisRun {
    std::int64_t size;
    int axis;  // -1 for merged dimensions
};

/// The dimensions of a dense tensor in memory order as rest, axis, rest, ..., axis, rest. Every axis of `axes` is a
/// run; the dimensions between two of them are merged into a rest, which has size 1 if there are none.
std::vector<AxisRun> axis_runs(const View& view, const Order& order, const std::vector<int>& axes);

}  // namespace gsprune
