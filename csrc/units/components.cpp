#include "units/components.hpp"

namespace gsprune {

namespace {

std::int64_t find_root(std::int64_t* parent, std::int64_t node) noexcept {
    while (parent[node] != node) {
        parent[node] = parent[parent[node]];
        node = parent[node];
    }
    return node;
}

}  // namespace

void connected_components(std::int64_t num_nodes, const std::int64_t* a, const std::int64_t* b, std::int64_t num_edges,
                          std::int64_t* labels) noexcept {
    for (std::int64_t node = 0; node < num_nodes; ++node) labels[node] = node;
    for (std::int64_t edge = 0; edge < num_edges; ++edge) {
        const std::int64_t first = find_root(labels, a[edge]);
        const std::int64_t second = find_root(labels, b[edge]);
        if (first < second) {
            labels[second] = first;
        } else {
            labels[first] = second;
        }
    }
    // A parent is never larger than its child, so parents are final before their children are reached.
    for (std::int64_t node = 0; node < num_nodes; ++node) labels[node] = labels[labels[node]];
}

}  // namespace gsprune
