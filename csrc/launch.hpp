#pragma once

#include <cstdint>
#include <vector>

#include "ceil_div.hpp"
#include "views.hpp"

// What the tables of all launches share. A table is an array of int64 that a kernel reads: for every job the number of
// tiles up to and with its own, by which a program finds its job; then a row of fields per job.

namespace gsprune {

/// A piece of a matrix that one program works on; kernels are compiled for the sizes.
struct Tile {
    std::int64_t rows;
    std::int64_t columns;
};

/// How many tiles cover a matrix.
constexpr std::int64_t count_tiles(std::int64_t rows, std::int64_t columns, const Tile& tile) noexcept {
    return ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns);
}

/// The tile of which the fewest cover a matrix; of equal ones the first.
std::size_t best_tile(std::int64_t rows, std::int64_t columns, const std::vector<Tile>& tiles) noexcept;

/// Throws std::invalid_argument where a grid cannot have so many programs.
void check_programs(std::int64_t programs, const char* work);

/// The address as kernels are told it.
inline std::int64_t address_of(const View& view) noexcept {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(view.data));
}

}  // namespace gsprune
