#pragma once

#include <cstddef>

namespace gsprune {

/// Memory of `num_bytes` > 0 aligned to 64 bytes; `release_block` gives it back. Throws std::bad_alloc.
///
/// Released blocks stay in a reserve and serve later requests of 5/8 of their size or more, because the page faults of
/// fresh memory cost more than filling it. The reserve keeps at most 16 MB, or 1.25 times the bytes in use, so steps
/// that replace tensors by smaller ones hold about twice their size. The oldest blocks go first.
void* acquire_block(std::size_t num_bytes);

/// Any thread may call it, with or without the GIL, also while the process ends.
void release_block(void* block) noexcept;

/// Gives the reserve back to the system; returns how many bytes it had.
std::size_t trim_reserve() noexcept;

/// Bytes of all blocks in use, and of the reserve.
struct PoolUse {
    std::size_t in_use;
    std::size_t in_reserve;
};
PoolUse pool_use() noexcept;

/// A block for the time of a scope.
class Scratch {
public:
    explicit Scratch(std::size_t num_bytes) : block_(acquire_block(num_bytes == 0 ? 1 : num_bytes)) {}
    ~Scratch() { release_block(block_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    [[nodiscard]] void* get() const noexcept { return block_; }

private:
    void* block_;
};

}  // namespace gsprune
