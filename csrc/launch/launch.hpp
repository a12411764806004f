#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tensor/ceil_div.hpp"
#include "tensor/views.hpp"

// The parts that all launch tables share. A table is an int64 array that a Triton kernel reads. It holds a row of
// fields per job, of which the first is the job's first program; then the job number of every program.

namespace gsprune {

/// The shape of a tile, the part of a matrix that a program works on at a time. Kernels are compiled for it.
struct TileSize {
    std::int64_t rows;
    std::int64_t columns;
};

/// The number of tiles that cover a matrix.
constexpr std::int64_t count_tiles(std::int64_t rows, std::int64_t columns, const TileSize& tile) noexcept {
    return ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns);
}

/// The index of the tile size that covers a matrix with the fewest tiles; the first one on a tie.
std::size_t best_tile(std::int64_t rows, std::int64_t columns, const std::vector<TileSize>& tiles) noexcept;

/// Limits of the number of steps, the tiles that one program works down. A small launch gets one step, so that its
/// tiles spread over all multiprocessors.
struct StepLimits {
    std::int64_t max_steps;
    std::int64_t busy_tiles;  // tiles of the launch per step; this many keep a large GPU busy

    [[nodiscard]] std::int64_t most_steps(std::int64_t all_tiles) const noexcept {
        return std::clamp<std::int64_t>(all_tiles / busy_tiles, 1, max_steps);
    }
};

/// The programs of one job: (row_tiles, column_tiles), each of which works down `steps` tiles.
struct Grid {
    std::int64_t column_tiles;
    std::int64_t steps;
    std::int64_t row_tiles;

    Grid(std::int64_t rows, std::int64_t columns, const TileSize& tile, std::int64_t most_steps) noexcept
        : column_tiles(ceil_div(columns, tile.columns)),
          steps(std::clamp<std::int64_t>(ceil_div(rows, tile.rows), 1, most_steps)),
          row_tiles(ceil_div(rows, tile.rows * steps)) {}

    [[nodiscard]] std::int64_t programs() const noexcept { return row_tiles * column_tiles; }
};

/// Maps every program of a launch to its job.
class Owners {
public:
    /// `work` names the launch in messages, as in "slicing".
    explicit Owners(const char* work) : work_(work) {}

    /// Gives the next job `programs` programs; returns its first one. Throws std::invalid_argument if the grid gets too
    /// large.
    std::int64_t add(std::int64_t programs);

    [[nodiscard]] std::int64_t programs() const noexcept { return programs_; }

    /// Entries that the job numbers take in a table: they are int32, two per entry.
    [[nodiscard]] std::size_t length() const noexcept { return (static_cast<std::size_t>(programs_) + 1) / 2; }

    /// Appends the job numbers, padded with a zero; returns the index of the first entry.
    std::int64_t append_to(std::vector<std::int64_t>& table) const;

private:
    const char* work_;
    std::int64_t programs_ = 0;
    std::vector<std::int64_t> counts_;  // per job
};

/// The address as a table entry.
inline std::int64_t address_of(const View& view) noexcept {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(view.data));
}

}  // namespace gsprune
