#pragma once

#include <cstdint>

namespace gsprune {

/// Bytes of the last-level cache that the first processor reaches; 0 where the system does not say. Looked up once.
std::int64_t last_level_cache_bytes() noexcept;

}  // namespace gsprune
