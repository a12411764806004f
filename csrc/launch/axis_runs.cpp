#include "launch/axis_runs.hpp"

#include <algorithm>

namespace gsprune {

std::vector<AxisRun> axis_runs(const View& view, const Order& order, const std::vector<int>& axes) {
    std::vector<AxisRun> runs{{1, -1}};
    runs.reserve(2 * axes.size() + 1);
    for (int i = 0; i < view.ndim; ++i) {
        const int axis = order[static_cast<std::size_t>(i)];
        const std::int64_t size = view.shape[static_cast<std::size_t>(axis)];
        if (std::find(axes.begin(), axes.end(), axis) == axes.end()) {
            runs.back().size *= size;
        } else {
            runs.push_back({size, axis});
            runs.push_back({1, -1});
        }
    }
    return runs;
}

}  // namespace gsprune
