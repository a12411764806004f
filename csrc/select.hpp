#pragma once

#include <cstdint>

namespace gsprune {

/// Sorted indices of the `num_kept` highest scores; of equal scores the lower index is kept.
///
/// `keys` is scratch for num_scores entries. No score is NaN; -0.0 equals 0.0. 0 <= num_kept <= num_scores < 2^32.
void select_highest(const float* scores, std::int64_t num_scores, std::int64_t num_kept, std::uint64_t* keys,
                    std::int64_t* kept) noexcept;

}  // namespace gsprune
