#pragma once

#include <cstddef>

namespace gsprune {

/// Memory of `num_bytes` > 0 aligned to 64 bytes; give it back with `release_block`.
///
/// Blocks come back from earlier calls where one fits, since the page faults of fresh memory cost more than filling it.
/// A block is handed out again only after its release. More than 32 MB and 1.25 times of what is in use is not kept in
/// reserve, so that steps which replace tensors by smaller ones hold about twice their size; but memory between blocks
/// in use can serve further blocks alone, not return to the system. Throws std::bad_alloc.
void* acquire_block(std::size_t num_bytes);

/// Any thread may call it, with or without the GIL, also while the process ends.
void release_block(void* block) noexcept;

/// Gives what is in reserve back to the system, but for what lies between blocks in use; returns how many bytes.
std::size_t trim_reserve() noexcept;

/// Bytes of blocks in use, and whatever else is kept.
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
