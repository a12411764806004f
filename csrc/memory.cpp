#include "memory.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <new>

#include "huge_pages.hpp"
#include "slabs.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define GSPRUNE_HAS_FORK 1
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gsprune {

namespace {

// As long as pages are anywhere: giving some back would take what lies behind the block along.
constexpr std::size_t page = std::size_t{64} << 10U;
// Kept in reserve even when nothing is in use, so that small networks never wait for the system.
constexpr std::size_t smallest_reserve = std::size_t{32} << 20U;

/// A block of its own, longer than slabs have them.
struct LargeBlock : Header {
    std::size_t capacity;  // usable bytes behind the header
};
static_assert(sizeof(LargeBlock) <= alignment);

LargeBlock* allocate(std::size_t num_bytes) {
    const std::size_t total = (num_bytes + alignment + page - 1) / page * page;
    return new (allocate_huge(total)) LargeBlock{{false}, total - alignment};
}

/// Gives whole huge pages behind the first `num_bytes` back to the system, if they are worth it.
///
/// To split a huge page costs more than a step saves, and a network that shrinks at every step would do it at every
/// step.
void shorten(LargeBlock& block, std::size_t num_bytes) noexcept {
    const std::size_t needed = (num_bytes + alignment + huge_page - 1) / huge_page * huge_page;
    const std::size_t total = block.capacity + alignment;
    if (total <= needed + needed / 4) return;
#if defined(__linux__)
    // The addresses stay with the block, so that it can be deleted as it was made; only the pages behind them go.
    if (madvise(reinterpret_cast<std::byte*>(&block) + needed, total - needed, MADV_DONTNEED) != 0) return;
    block.capacity = needed - alignment;
#endif
}

/// The longest block that may serve a request of `num_bytes`.
constexpr std::size_t longest_for(std::size_t num_bytes) noexcept {
#if defined(__linux__)
    if (num_bytes > Slabs::longest) return std::numeric_limits<std::size_t>::max();  // it can be shortened
#endif
    return 2 * num_bytes;
}

/// Large blocks that come back when a tensor dies.
struct LargeBlocks {
    std::multimap<std::size_t, LargeBlock*> reserve;  // by capacity
    std::size_t in_use = 0;
    std::size_t in_reserve = 0;

    LargeBlock* take(std::size_t num_bytes) noexcept {
        const auto found = reserve.lower_bound(num_bytes);
        if (found == reserve.end() || found->first > longest_for(num_bytes)) return nullptr;
        LargeBlock* block = found->second;
        in_reserve -= block->capacity;
        reserve.erase(found);
        shorten(*block, num_bytes);
        return block;
    }

    void release(LargeBlock* block) noexcept {
        in_use -= block->capacity;
        try {
            reserve.emplace(block->capacity, block);
            in_reserve += block->capacity;
        } catch (const std::bad_alloc&) {
            free_huge(block);
        }
    }

    bool give_back_smallest() noexcept {
        if (reserve.empty()) return false;
        const auto smallest = reserve.begin();
        in_reserve -= smallest->first;
        free_huge(smallest->second);
        reserve.erase(smallest);
        return true;
    }
};

/// More than the next step can need, since steps make networks smaller.
bool is_plenty(std::size_t in_reserve, std::size_t in_use) noexcept { return in_reserve > in_use + in_use / 4; }

struct Pool {
    std::mutex mutex;
    Slabs slabs;
    LargeBlocks large;

    [[nodiscard]] PoolUse use() const noexcept {
        return {slabs.in_use() + large.in_use, slabs.in_reserve() + large.in_reserve};
    }

    /// Gives back what of the reserve exceeds what the next step can need: blocks of either kind for its own kind.
    void give_back_surplus() noexcept {
        while (slabs.in_reserve() + large.in_reserve > smallest_reserve) {
            if (is_plenty(slabs.in_reserve(), slabs.in_use()) && slabs.give_back_one()) continue;
            if (is_plenty(large.in_reserve, large.in_use) && large.give_back_smallest()) continue;
            return;
        }
    }
};

Pool& pool();

#ifdef GSPRUNE_HAS_FORK
void before_fork() noexcept { pool().mutex.lock(); }
void after_fork() noexcept { pool().mutex.unlock(); }
#endif

/// Never destroyed: tensors may die after the static objects of the process.
Pool& pool() {
    static Pool* const the_pool = [] {
        auto* fresh = new Pool;
#ifdef GSPRUNE_HAS_FORK
        pthread_atfork(&before_fork, &after_fork, &after_fork);
#endif
        return fresh;
    }();
    return *the_pool;
}

}  // namespace

void* acquire_block(std::size_t num_bytes) {
    Pool& shared = pool();
    const std::lock_guard<std::mutex> guard(shared.mutex);
    // A network's largest tensors get short as it shrinks. What they stood on has been cleared by the system already,
    // which of a slab nobody knows.
    LargeBlock* block = 2 * num_bytes > Slabs::longest ? shared.large.take(num_bytes) : nullptr;
    if (block == nullptr && num_bytes <= Slabs::longest) return shared.slabs.acquire(num_bytes);
    if (block == nullptr) block = allocate(num_bytes);
    shared.large.in_use += block->capacity;
    return reinterpret_cast<std::byte*>(block) + alignment;
}

void release_block(void* block) noexcept {
    auto* header = reinterpret_cast<Header*>(static_cast<std::byte*>(block) - alignment);
    Pool& shared = pool();
    const std::lock_guard<std::mutex> guard(shared.mutex);
    if (header->is_in_slab) {
        shared.slabs.release(header);
    } else {
        shared.large.release(static_cast<LargeBlock*>(header));
    }
    shared.give_back_surplus();
}

std::size_t trim_reserve() noexcept {
    Pool& shared = pool();
    const std::lock_guard<std::mutex> guard(shared.mutex);
    const std::size_t before = shared.use().in_reserve;
    while (shared.large.give_back_smallest() || shared.slabs.give_back_one()) {
    }
    return before - shared.use().in_reserve;
}

PoolUse pool_use() noexcept {
    Pool& shared = pool();
    const std::lock_guard<std::mutex> guard(shared.mutex);
    return shared.use();
}

}  // namespace gsprune
