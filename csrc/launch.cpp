#include "launch.hpp"

#include <stdexcept>
#include <string>

namespace gsprune {

namespace {

constexpr std::int64_t max_programs = (std::int64_t{1} << 31U) - 1;  // of a grid's first dimension, on every device

}  // namespace

std::size_t best_tile(std::int64_t rows, std::int64_t columns, const std::vector<Tile>& tiles) noexcept {
    std::size_t best = 0;
    for (std::size_t i = 1; i < tiles.size(); ++i) {
        if (count_tiles(rows, columns, tiles[i]) < count_tiles(rows, columns, tiles[best])) best = i;
    }
    return best;
}

void check_programs(std::int64_t programs, const char* work) {
    if (programs <= max_programs) return;
    throw std::invalid_argument(std::string(work) + " takes " + std::to_string(programs) +
                                " programs, but one launch holds " + std::to_string(max_programs) +
                                "; pass the tensors in several calls");
}

}  // namespace gsprune
