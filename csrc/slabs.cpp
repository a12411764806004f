#include "slabs.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace gsprune {

namespace {

// The shortest rest worth a block of its own: a header and a line.
constexpr std::size_t smallest = 2 * alignment;
// How many blocks of the list a size itself belongs to are tried: some of them are long enough, those of the next all.
constexpr int num_tries = 4;

// The address sanitizer knows nothing of blocks. It is told which bytes belong to nobody, a line behind each block
// among them.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t red_zone = alignment;
void forbid(void* memory, std::size_t num_bytes) noexcept { __asan_poison_memory_region(memory, num_bytes); }
void allow(void* memory, std::size_t num_bytes) noexcept { __asan_unpoison_memory_region(memory, num_bytes); }
#else
constexpr std::size_t red_zone = 0;
void forbid(void* /*memory*/, std::size_t /*num_bytes*/) noexcept {}
void allow(void* /*memory*/, std::size_t /*num_bytes*/) noexcept {}
#endif

std::byte* memory_of(Header* header) noexcept { return reinterpret_cast<std::byte*>(header) + alignment; }

}  // namespace

std::size_t Slabs::list_of(std::size_t size) noexcept {
    const std::uint64_t lines = size / alignment * 4;  // times 4: room for the two bits after the first, whatever it is
    const auto first_bit = static_cast<std::size_t>(63 - __builtin_clzll(lines));
    return first_bit * 4 + ((lines >> (first_bit - 2)) & 3U);
}

Slabs::Block* Slabs::find(std::size_t size) const noexcept {
    const std::size_t own = list_of(size);
    Block* block = lists_[own];
    for (int i = 0; i < num_tries && block != nullptr; ++i, block = block->next) {
        if (block->size >= size) return block;
    }
    for (std::size_t word = (own + 1) / 64; word < filled_.size(); ++word) {
        std::uint64_t bits = filled_[word];
        if (word == (own + 1) / 64) bits &= ~std::uint64_t{0} << ((own + 1) % 64);
        if (bits != 0) return lists_[word * 64 + static_cast<std::size_t>(__builtin_ctzll(bits))];
    }
    return nullptr;
}

void Slabs::make_slab() {
    auto* block = new (allocate_huge(slab_bytes)) Block{};
    block->size = slab_bytes;
    block->is_last = true;
    forbid(memory_of(block), slab_bytes - alignment);
    insert(block);
    ++num_slabs_;
    ++num_idle_;
}

void Slabs::insert(Block* block) noexcept {
    const std::size_t list = list_of(block->size);
    block->is_free = true;
    block->previous = nullptr;
    block->next = lists_[list];
    if (block->next != nullptr) block->next->previous = block;
    lists_[list] = block;
    filled_[list / 64] |= std::uint64_t{1} << (list % 64);
}

void Slabs::remove(Block* block) noexcept {
    block->is_free = false;
    if (block->next != nullptr) block->next->previous = block->previous;
    if (block->previous != nullptr) {
        block->previous->next = block->next;
        return;
    }
    const std::size_t list = list_of(block->size);
    lists_[list] = block->next;
    if (block->next == nullptr) filled_[list / 64] &= ~(std::uint64_t{1} << (list % 64));
}

void Slabs::split(Block* block, std::size_t size) noexcept {
    if (block->size - size < smallest) return;
    std::byte* place = reinterpret_cast<std::byte*>(block) + size;
    allow(place, sizeof(Block));
    auto* rest = new (place) Block{};
    rest->size = block->size - size;
    rest->is_last = block->is_last;
    rest->before = block;
    block->size = size;
    block->is_last = false;
    if (!rest->is_last) rest->after()->before = rest;
    insert(rest);
}

void Slabs::join(Block* first, const Block* second) noexcept {
    first->size += second->size;
    first->is_last = second->is_last;
    if (!first->is_last) first->after()->before = first;
}

void* Slabs::acquire(std::size_t num_bytes) {
    const std::size_t size = alignment + (num_bytes + alignment - 1) / alignment * alignment + red_zone;
    Block* block = find(size);
    if (block == nullptr) {
        make_slab();
        block = find(size);
    }
    if (block->is_whole_slab()) --num_idle_;
    remove(block);
    split(block, size);
    in_use_ += block->size;
    block->is_in_slab = true;
    allow(memory_of(block), num_bytes);
    return memory_of(block);
}

void Slabs::release(Header* header) noexcept {
    auto* block = static_cast<Block*>(header);
    in_use_ -= block->size;
    forbid(memory_of(block), block->size - alignment);
    if (!block->is_last && block->after()->is_free) {
        Block* after = block->after();
        remove(after);
        join(block, after);
    }
    if (block->before != nullptr && block->before->is_free) {
        Block* before = block->before;
        remove(before);
        join(before, block);
        block = before;
    }
    insert(block);
    if (block->is_whole_slab()) ++num_idle_;
}

bool Slabs::give_back_one() noexcept {
    if (num_idle_ == 0) return false;
    Block* block = lists_[list_of(slab_bytes)];  // of its length there are none but whole slabs
    remove(block);
    allow(block, slab_bytes);
    free_huge(block);
    --num_idle_;
    --num_slabs_;
    return true;
}

}  // namespace gsprune
