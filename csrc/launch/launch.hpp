#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tensor/ceil_div.hpp"
#include "tensor/views.hpp"

// What the tables of all launches share. A table is an array of int64 that a kernel reads: a row of fields per job, the
// first of which is the first program that works on it, and for every program its job.

namespace gsprune {

/// A piece of a matrix that one program works on; kernels are compiled for the sizes.
struct TileSize {
    std::int64_t rows;
    std::int64_t columns;
};

/// How many tiles cover a matrix.
constexpr std::int64_t count_tiles(std::int64_t rows, std::int64_t columns, const TileSize& tile) noexcept {
    return ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns);
}

/// The tile of which the fewest cover a matrix; of equal ones the first.
std::size_t best_tile(std::int64_t rows, std::int64_t columns, const std::vector<TileSize>& tiles) noexcept;

/// How many tiles one program goes down: most where there are many, so that those of a small launch find a
/// multiprocessor each.
struct StepLimits {
    std::int64_t max_steps;   // at most so many ...
    std::int64_t busy_tiles;  // ... and one for every so many of all tiles

    [[nodiscard]] std::int64_t most(std::int64_t all_tiles) const noexcept {
        return std::clamp<std::int64_t>(all_tiles / busy_tiles, 1, max_steps);
    }
};

/// How the programs of a launch go over a job's tiles.
struct Grid {
    std::int64_t column_tiles;
    std::int64_t steps;      // down the rows, by one program
    std::int64_t row_tiles;  // of `steps` tiles each

    Grid(std::int64_t rows, std::int64_t columns, const TileSize& tile, std::int64_t most_steps) noexcept
        : column_tiles(ceil_div(columns, tile.columns)),
          steps(std::clamp<std::int64_t>(ceil_div(rows, tile.rows), 1, most_steps)),
          row_tiles(ceil_div(rows, tile.rows * steps)) {}

    [[nodiscard]] std::int64_t programs() const noexcept { return row_tiles * column_tiles; }
};

/// The job of every program.
class Owners {
public:
    /// `work` is what the launch does, as messages call it.
    explicit Owners(const char* work) : work_(work) {}

    /// The next job takes that many programs; returns the first. Throws std::invalid_argument where a grid cannot have
    /// so many.
    std::int64_t add(std::int64_t programs);

    [[nodiscard]] std::int64_t programs() const noexcept { return programs_; }

    /// How many numbers hold them, two per number.
    [[nodiscard]] std::size_t length() const noexcept { return (static_cast<std::size_t>(programs_) + 1) / 2; }

    /// The last of an odd count with a zero; returns where they begin.
    std::int64_t append_to(std::vector<std::int64_t>& table) const;

private:
    const char* work_;
    std::int64_t programs_ = 0;
    std::vector<std::int64_t> counts_;  // per job
};

/// The address as kernels are told it.
inline std::int64_t address_of(const View& view) noexcept {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(view.data));
}

}  // namespace gsprune
