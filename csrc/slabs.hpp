#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "huge_pages.hpp"

namespace gsprune {

// A line of the caches: what is handed out is aligned to it, and has a header in the line before.
constexpr std::size_t alignment = 64;

struct Header {
    bool is_in_slab;
};

/// Blocks of up to `longest` bytes each, carved out of slabs of a fixed size. Not for several threads at once.
///
/// A released block unites with its free neighbours, so that what a shrinking network leaves serves blocks of any other
/// size, and a tensor that outlives the others keeps no more than itself from use. Free blocks stand in lists by size,
/// four per power of two; a request takes one of the first list whose blocks are long enough: in constant time, and
/// slabs without a block in use come last. After Masmano et al. 2004, "TLSF: a new dynamic memory allocator for
/// real-time systems", https://doi.org/10.1109/EMRTS.2004.1311009.
class Slabs {
public:
    // Longer slabs are filled better, shorter ones are sooner free of blocks: simulated networks that shrank to a
    // seventh held at worst 2.9 times their tensors with slabs of 8 and 16 MB, 3.5 times with slabs of 4 MB.
    static constexpr std::size_t slab_bytes = 8 * huge_page;
    static constexpr std::size_t longest = 2 * huge_page;

    /// Throws std::bad_alloc.
    void* acquire(std::size_t num_bytes);
    void release(Header* header) noexcept;

    /// Bytes of blocks in use; all other bytes of all slabs.
    [[nodiscard]] std::size_t in_use() const noexcept { return in_use_; }
    [[nodiscard]] std::size_t in_reserve() const noexcept { return num_slabs_ * slab_bytes - in_use_; }

    /// Gives a slab without a block in use back to the system, if there is one.
    bool give_back_one() noexcept;

private:
    /// The blocks of a slab follow one another without a gap; no two neighbours are free.
    struct Block : Header {
        bool is_free;
        bool is_last;
        std::size_t size;  // with the header
        Block* before;     // in memory; null for the first of a slab
        Block* next;       // in its list, as long as it is free
        Block* previous;

        Block* after() noexcept { return reinterpret_cast<Block*>(reinterpret_cast<std::byte*>(this) + size); }
        [[nodiscard]] bool is_whole_slab() const noexcept { return before == nullptr && is_last; }
    };
    static_assert(sizeof(Block) <= alignment);
    static constexpr std::size_t num_lists = 128;

    static std::size_t list_of(std::size_t size) noexcept;
    Block* find(std::size_t size) const noexcept;
    void make_slab();
    void insert(Block* block) noexcept;
    void remove(Block* block) noexcept;
    void split(Block* block, std::size_t size) noexcept;
    static void join(Block* first, const Block* second) noexcept;

    std::array<Block*, num_lists> lists_{};
    std::array<std::uint64_t, num_lists / 64> filled_{};  // a bit per list
    std::size_t num_slabs_ = 0;
    std::size_t num_idle_ = 0;  // without a block in use
    std::size_t in_use_ = 0;
};

}  // namespace gsprune
