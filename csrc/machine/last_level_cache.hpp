#pragma once

#include <cstdint>

namespace gsprune {

/// Size of the last-level cache of the first processor; 0 if unknown. Looked up once.
std::int64_t last_level_cache_bytes() noexcept;

}  // namespace gsprune
