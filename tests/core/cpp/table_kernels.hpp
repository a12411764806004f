#pragma once

// What the Triton kernels do with their tables (kernels/score.py, kernels/slice.py), on memory of this process: every
// program, in any order, in plain loops. So the sanitizers see whatever a table would have a GPU read or write.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "score_tables.hpp"
#include "slice_tables.hpp"

template <class Pointer>
Pointer* pointer_to(std::int64_t address) {
    return reinterpret_cast<Pointer*>(static_cast<std::uintptr_t>(address));
}

/// A program's job, and which of the job's tiles is its own.
struct Place {
    const std::int64_t* fields;
    std::int64_t tile;

    Place(const std::int64_t* table, std::int64_t num_jobs, std::int64_t num_fields, std::int64_t program) {
        const std::int64_t* end = std::upper_bound(table, table + num_jobs, program);
        fields = table + num_jobs + (end - table) * num_fields;
        tile = program - (end == table ? 0 : end[-1]);
    }
};

inline void run_slice_kernel(const gsprune::SliceTables& tables, const std::vector<gsprune::Tile>& tiles) {
    const std::int64_t* positions = tables.table.data() + tables.keep_base;
    for (std::int64_t program = 0; program < tables.programs; ++program) {
        const auto [field, local] = Place(tables.table.data(), tables.num_jobs, 15, program);
        const gsprune::Tile tile = tiles[static_cast<std::size_t>(field[3])];
        const std::int64_t first_row = local / field[6] * tile.rows;
        const std::int64_t first_column = local % field[6] * tile.columns;
        for (std::int64_t row = first_row; row < std::min(field[4], first_row + tile.rows); ++row) {
            const std::int64_t source_row = row / field[8] * field[9] + positions[field[10] + row % field[8]];
            for (std::int64_t i = first_column; i < std::min(field[5], first_column + tile.columns); ++i) {
                const std::int64_t pair = i / field[13];
                const std::int64_t kept = pair / field[11] * field[12] + positions[field[14] + pair % field[11]];
                const std::int64_t word = source_row * field[7] + kept * field[13] + i % field[13];
                std::memcpy(pointer_to<std::byte>(field[1]) + (row * field[5] + i) * field[2],
                            pointer_to<const std::byte>(field[0]) + word * field[2],
                            static_cast<std::size_t>(field[2]));
            }
        }
    }
}

/// The sums of magnitudes of float32 tensors, as `score_kernel` and `fold_kernel` make them.
inline std::vector<double> run_score_kernels(const gsprune::ScoreTables& tables, const gsprune::ScoreTiling& tiling) {
    std::vector<double> partials(static_cast<std::size_t>(tables.num_partials), NAN);
    for (std::int64_t program = 0; program < tables.programs; ++program) {
        const auto [field, local] = Place(tables.table.data(), tables.num_jobs, 10, program);
        const gsprune::Tile tile = tiling.tiles[static_cast<std::size_t>(field[7])];
        const std::int64_t row_tile = local / field[5];
        const std::int64_t column_tile = local % field[5];
        const std::int64_t first_row = row_tile * field[6] * tile.rows;
        const std::int64_t end_row = std::min(field[3], first_row + field[6] * tile.rows);
        const std::int64_t first_column = column_tile * tile.columns;
        const std::int64_t end_column = std::min(field[4], first_column + tile.columns);
        const auto* values = pointer_to<const float>(field[0]);
        for (std::int64_t row = first_row; row < end_row && field[8] >= 0; ++row) {
            double sum = 0.0;
            for (std::int64_t i = first_column; i < end_column; ++i) sum += std::fabs(values[row * field[4] + i]);
            partials.at(static_cast<std::size_t>(field[8] + column_tile * field[3] + row)) = sum;
        }
        for (std::int64_t i = first_column; i < end_column && field[9] >= 0; ++i) {
            double sum = 0.0;
            for (std::int64_t row = first_row; row < end_row; ++row) sum += std::fabs(values[row * field[4] + i]);
            partials.at(static_cast<std::size_t>(field[9] + row_tile * field[4] + i)) = sum;
        }
    }
    std::vector<double> sums(static_cast<std::size_t>(tables.num_sums), NAN);
    for (std::int64_t program = 0; program < tables.fold_programs; ++program) {
        const auto [field, local] = Place(tables.table.data() + tables.fold_base, tables.num_folds, 5, program);
        const std::int64_t first = local * tiling.fold_outputs;
        for (std::int64_t i = first; i < std::min(field[2], first + tiling.fold_outputs); ++i) {
            double sum = 0.0;
            for (std::int64_t term = 0; term < field[1] * field[3]; ++term) {
                const std::int64_t partial = (term / field[3] * field[2] + i) * field[3] + term % field[3];
                sum += partials.at(static_cast<std::size_t>(field[0] + partial));
            }
            sums.at(static_cast<std::size_t>(field[4] + i)) = sum;
        }
    }
    return sums;
}
