#pragma once

#include <cstddef>

namespace gsprune {

/// Allocates `num_bytes` > 0 aligned to 64 bytes; `release_block` frees them. Throws std::bad_alloc.
///
/// Released blocks stay in a reserve, because page faults of fresh memory cost more than filling it. A reserved block
/// serves requests of at least 4/9 of its size (from 2 MB on: 5/8). The reserve holds at most 16 MB or 1.25 times the
/// bytes in use; the oldest blocks are freed first.
void* acquire_block(std::size_t num_bytes);

/// Any thread may call this, with or without the GIL, also during process exit.
void release_block(void* block) noexcept;

/// Frees the reserve; returns its size in bytes.
std::size_t trim_reserve() noexcept;

/// Bytes of the blocks in use and of the reserve.
struct PoolUse {
    std::size_t in_use;
    std::size_t in_reserve;
};
PoolUse pool_use() noexcept;

}  // namespace gsprune
