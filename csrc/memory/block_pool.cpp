#include "memory/block_pool.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define GSPRUNE_HAS_FORK 1
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gsprune {

namespace {

// A cache line: blocks are aligned to it, and the line before a block holds its header.
constexpr std::size_t alignment = 64;
// Huge pages cause 512 times fewer page faults than pages of 4 KB, and fewer TLB misses.
constexpr std::size_t huge_page = std::size_t{2} << 20U;
// Kept in reserve even when nothing is in use, so that small networks never wait for the system.
constexpr std::size_t smallest_reserve = std::size_t{32} << 20U;

struct Header {
    std::size_t capacity;  // usable bytes behind the header
};
static_assert(sizeof(Header) <= alignment);

constexpr bool is_long(std::size_t num_bytes) noexcept { return num_bytes >= huge_page; }

constexpr std::align_val_t alignment_of(std::size_t num_bytes) noexcept {
    return std::align_val_t{is_long(num_bytes) ? huge_page : alignment};
}

constexpr std::size_t round_up(std::size_t num_bytes, std::size_t multiple) noexcept {
    return (num_bytes + multiple - 1) / multiple * multiple;
}

Header* allocate(std::size_t num_bytes) {
    // 64 KB is the longest usual page. Pages that are given back must not reach into the memory behind the block.
    const std::size_t total = round_up(num_bytes + alignment, is_long(num_bytes) ? std::size_t{64} << 10U : alignment);
    void* memory = ::operator new(total, alignment_of(num_bytes));
#if defined(__linux__)
    // A hint: failure changes nothing.
    if (is_long(num_bytes)) static_cast<void>(madvise(memory, total, MADV_HUGEPAGE));
#endif
    return new (memory) Header{total - alignment};
}

void deallocate(Header* block) noexcept { ::operator delete(block, alignment_of(block->capacity)); }

/// Gives whole huge pages behind the first `num_bytes` back to the system if they are more than a quarter.
///
/// Splitting a huge page costs more than a step saves, and a network that shrinks at every step would do it every time.
void shorten(Header& block, std::size_t num_bytes) noexcept {
    const std::size_t needed = round_up(num_bytes + alignment, huge_page);
    const std::size_t total = block.capacity + alignment;
    if (total <= needed + needed / 4) return;
#if defined(__linux__)
    // The addresses stay with the block, so that it can be deleted as it was made. Only the pages go.
    if (madvise(reinterpret_cast<std::byte*>(&block) + needed, total - needed, MADV_DONTNEED) != 0) return;
    block.capacity = needed - alignment;
#endif
}

/// More than the next step can need, since steps make networks smaller.
constexpr bool is_surplus(std::size_t in_reserve, std::size_t in_use) noexcept {
    return in_reserve > std::max(smallest_reserve, in_use + in_use / 4);
}

class BlockPool {
public:
    Header* acquire(std::size_t num_bytes) {
        num_bytes = round_up(num_bytes, alignment);
        const std::lock_guard<std::mutex> guard(mutex);
        Header* block = is_long(num_bytes) ? take(num_bytes) : nullptr;
        if (block == nullptr) block = allocate(num_bytes);
        in_use_ += block->capacity;
        if (is_long(block->capacity)) long_in_use_ += block->capacity;
        return block;
    }

    void release(Header* block) noexcept {
        const std::lock_guard<std::mutex> guard(mutex);
        in_use_ -= block->capacity;
        if (!is_long(block->capacity)) return deallocate(block);
        long_in_use_ -= block->capacity;
        try {
            reserve_.emplace(block->capacity, block);
            in_reserve_ += block->capacity;
        } catch (const std::bad_alloc&) {
            deallocate(block);
        }
        while (is_surplus(in_reserve_, long_in_use_)) give_back_shortest();
    }

    std::size_t trim() noexcept {
        const std::lock_guard<std::mutex> guard(mutex);
        const std::size_t before = in_reserve_;
        while (!reserve_.empty()) give_back_shortest();
        return before;
    }

    PoolUse use() noexcept {
        const std::lock_guard<std::mutex> guard(mutex);
        return {in_use_, in_reserve_};
    }

    std::mutex mutex;

private:
    /// The shortest block of the reserve that is long enough, if there is one.
    Header* take(std::size_t num_bytes) noexcept {
        const auto found = reserve_.lower_bound(num_bytes);
        if (found == reserve_.end()) return nullptr;
        // A fresh block wastes less than one of which more than a quarter would be left over.
        if (std::min(found->first, round_up(num_bytes + alignment, huge_page)) > num_bytes + num_bytes / 4) {
            return nullptr;
        }
#if !defined(__linux__)
        if (found->first > 2 * num_bytes) return nullptr;  // it could not be shortened
#endif
        Header* block = found->second;
        in_reserve_ -= block->capacity;
        reserve_.erase(found);
        shorten(*block, num_bytes);
        return block;
    }

    void give_back_shortest() noexcept {
        const auto shortest = reserve_.begin();
        in_reserve_ -= shortest->first;
        deallocate(shortest->second);
        reserve_.erase(shortest);
    }

    std::multimap<std::size_t, Header*> reserve_;  // by capacity
    std::size_t in_use_ = 0;
    std::size_t long_in_use_ = 0;
    std::size_t in_reserve_ = 0;
};

BlockPool& pool();

#ifdef GSPRUNE_HAS_FORK
void before_fork() noexcept { pool().mutex.lock(); }
void after_fork() noexcept { pool().mutex.unlock(); }
#endif

/// Never destroyed: tensors may die after the static objects of the process.
BlockPool& pool() {
    static BlockPool* const the_pool = [] {
        auto* fresh = new BlockPool;
#ifdef GSPRUNE_HAS_FORK
        pthread_atfork(&before_fork, &after_fork, &after_fork);
#endif
        return fresh;
    }();
    return *the_pool;
}

}  // namespace

void* acquire_block(std::size_t num_bytes) {
    return reinterpret_cast<std::byte*>(pool().acquire(num_bytes)) + alignment;
}

void release_block(void* block) noexcept {
    pool().release(reinterpret_cast<Header*>(static_cast<std::byte*>(block) - alignment));
}

std::size_t trim_reserve() noexcept { return pool().trim(); }

PoolUse pool_use() noexcept { return pool().use(); }

}  // namespace gsprune
