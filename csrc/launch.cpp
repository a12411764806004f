#include "launch.hpp"

#include <cstring>
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

std::int64_t Owners::add(std::int64_t programs) {
    const std::int64_t first = this->programs();
    if (programs > max_programs - first) {
        throw std::invalid_argument(std::string(work_) + " takes " + std::to_string(first + programs) +
                                    " programs or more, but one launch holds " + std::to_string(max_programs) +
                                    "; pass the tensors in several calls");
    }
    jobs_.insert(jobs_.end(), static_cast<std::size_t>(programs), num_jobs_++);
    return first;
}

std::int64_t Owners::append_to(std::vector<std::int64_t>& table) const {
    const std::size_t begin = table.size();
    table.resize(begin + (jobs_.size() + 1) / 2);
    if (!jobs_.empty()) std::memcpy(table.data() + begin, jobs_.data(), jobs_.size() * sizeof(jobs_[0]));
    return static_cast<std::int64_t>(begin);
}

}  // namespace gsprune
