#pragma once

#include <cstdint>

namespace gsprune {

/// Size in bytes of the last-level cache that the first core uses, read once; 32 MiB where the system does not tell.
std::int64_t last_level_cache_bytes() noexcept;

}  // namespace gsprune
