#pragma once

#include <cstdint>
#include <vector>

#include "tensor/views.hpp"

namespace gsprune {

/// Neighbouring dimensions of a dense tensor, as one.
struct AxisRun {
    std::int64_t size;
    int axis;  // -1 where its positions are of no interest one by one
};

/// A dense tensor's dimensions in memory order, as rest, axis, rest, axis, ..., rest: a run per axis of `axes`, and all
/// that lies between two of them as one. A rest that is not there has size 1.
std::vector<AxisRun> axis_runs(const View& view, const Order& order, const std::vector<int>& axes);

}  // namespace gsprune
