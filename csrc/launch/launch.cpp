#include "launch/launch.hpp"

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace gsprune {

namespace {

constexpr std::int64_t max_programs = (std::int64_t{1} << 31U) - 1;  // CUDA's limit for a grid's first dimension

}  // namespace

std::size_t best_tile(std::int64_t rows, std::int64_t columns, const std::vector<TileSize>& tiles) noexcept {
    std::size_t best = 0;
    for (std::size_t i = 1; i < tiles.size(); ++i) {
        if (count_tiles(rows, columns, tiles[i]) < count_tiles(rows, columns, tiles[best])) best = i;
    }
    return best;
}

std::int64_t Owners::add(std::int64_t programs) {
    if (programs > max_programs - programs_) {
        throw std::invalid_argument(std::string(work_) + " takes " + std::to_string(programs_ + programs) +
                                    " programs or more, but one launch holds " + std::to_string(max_programs) +
                                    "; pass the tensors in several calls");
    }
    counts_.push_back(programs);
    return std::exchange(programs_, programs_ + programs);
}

std::int64_t Owners::append_to(std::vector<std::int64_t>& table) const {
    const std::size_t begin = table.size();
    table.resize(begin + length());
    auto* owner = reinterpret_cast<std::byte*>(table.data() + begin);
    for (std::size_t job = 0; job < counts_.size(); ++job) {
        const auto number = static_cast<std::int32_t>(job);
        for (std::int64_t i = 0; i < counts_[job]; ++i, owner += sizeof(number)) {
            std::memcpy(owner, &number, sizeof(number));
        }
    }
    return static_cast<std::int64_t>(begin);
}

}  // namespace gsprune
