#pragma once

#include <cstdint>

namespace gsprune {

/// Connected components of an undirected graph: labels[v] becomes the smallest node of v's component.
///
/// Every entry of `a` and `b` must lie in [0, num_nodes). Union by smallest root with path halving, so
/// O((num_nodes + num_edges) log num_nodes).
void connected_components(std::int64_t num_nodes, const std::int64_t* a, const std::int64_t* b, std::int64_t num_edges,
                          std::int64_t* labels) noexcept;

}  // namespace gsprune
