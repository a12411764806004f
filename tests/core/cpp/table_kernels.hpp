#pragma once

// What the Triton kernels do with their tables (kernels/score.py, kernels/slice.py), on memory of this process: every
// program, in any order, in plain loops. So the sanitizers see whatever a table would have a GPU read or write.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "launch/score_tables.hpp"
#include "launch/slice_tables.hpp"

template <class Pointer>
Pointer* pointer_to(std::int64_t address) {
    return reinterpret_cast<Pointer*>(static_cast<std::uintptr_t>(address));
}

/// A program's job, and which of the job's programs it is.
struct Place {
    const std::int64_t* fields;
    std::int64_t local;

    Place(const std::int64_t* jobs, std::int64_t num_fields, const std::int64_t* owners, std::int64_t program) {
        std::int32_t owner = 0;
        std::memcpy(&owner, reinterpret_cast<const std::int32_t*>(owners) + program, sizeof(owner));
        fields = jobs + owner * num_fields;
        local = program - fields[0];
    }
};

inline void run_slice_kernel(const gsprune::SliceTables& tables, const std::vector<gsprune::TileSize>& tiles) {
    const std::int64_t* table = tables.table.data();
    const std::int64_t* positions = table + tables.keep_base;
    for (std::int64_t program = 0; program < tables.programs; ++program) {
        const auto [field, local] = Place(table, 17, table + tables.owners, program);
        const gsprune::TileSize tile = tiles[static_cast<std::size_t>(field[4])];
        const std::int64_t first_row = local / field[7] * field[8] * tile.rows;
        const std::int64_t end_row = std::min(field[5], first_row + field[8] * tile.rows);
        const std::int64_t first_column = local % field[7] * tile.columns;
        for (std::int64_t row = first_row; row < end_row; ++row) {
            const std::int64_t source_row = row / field[10] * field[11] + positions[field[12] + row % field[10]];
            for (std::int64_t i = first_column; i < std::min(field[6], first_column + tile.columns); ++i) {
                const std::int64_t pair = i / field[15];
                const std::int64_t kept = pair / field[13] * field[14] + positions[field[16] + pair % field[13]];
                const std::int64_t word = source_row * field[9] + kept * field[15] + i % field[15];
                std::memcpy(pointer_to<std::byte>(field[2]) + (row * field[6] + i) * field[3],
                            pointer_to<const std::byte>(field[1]) + word * field[3],
                            static_cast<std::size_t>(field[3]));
            }
        }
    }
}

/// The sums of magnitudes of float32 tensors, as `score_kernel` and `fold_kernel` make them.
inline std::vector<double> run_score_kernels(const gsprune::ScoreTables& tables, const gsprune::ScoreTiling& tiling) {
    std::vector<double> partials(static_cast<std::size_t>(tables.num_partials), NAN);
    const std::int64_t* table = tables.table.data();
    for (std::int64_t program = 0; program < tables.programs; ++program) {
        const auto [field, local] = Place(table, 11, table + tables.owners, program);
        const gsprune::TileSize tile = tiling.tiles[static_cast<std::size_t>(field[8])];
        const std::int64_t row_tile = local / field[6];
        const std::int64_t column_tile = local % field[6];
        const std::int64_t first_row = row_tile * field[7] * tile.rows;
        const std::int64_t end_row = std::min(field[4], first_row + field[7] * tile.rows);
        const std::int64_t first_column = column_tile * tile.columns;
        const std::int64_t end_column = std::min(field[5], first_column + tile.columns);
        const auto* values = pointer_to<const float>(field[1]);
        for (std::int64_t row = first_row; row < end_row && field[9] >= 0; ++row) {
            double sum = 0.0;
            for (std::int64_t i = first_column; i < end_column; ++i) sum += std::fabs(values[row * field[5] + i]);
            partials.at(static_cast<std::size_t>(field[9] + column_tile * field[4] + row)) = sum;
        }
        for (std::int64_t i = first_column; i < end_column && field[10] >= 0; ++i) {
            double sum = 0.0;
            for (std::int64_t row = first_row; row < end_row; ++row) sum += std::fabs(values[row * field[5] + i]);
            partials.at(static_cast<std::size_t>(field[10] + row_tile * field[5] + i)) = sum;
        }
    }
    std::vector<double> sums(static_cast<std::size_t>(tables.num_sums), NAN);
    for (std::int64_t program = 0; program < tables.fold_programs; ++program) {
        const auto [field, local] = Place(table + tables.fold_base, 6, table + tables.fold_owners, program);
        const std::int64_t first = local * tiling.fold_outputs;
        for (std::int64_t i = first; i < std::min(field[3], first + tiling.fold_outputs); ++i) {
            double sum = 0.0;
            for (std::int64_t term = 0; term < field[2] * field[4]; ++term) {
                const std::int64_t partial = (term / field[4] * field[3] + i) * field[4] + term % field[4];
                sum += partials.at(static_cast<std::size_t>(field[1] + partial));
            }
            sums.at(static_cast<std::size_t>(field[5] + i)) = sum;
        }
    }
    return sums;
}
