#include "memory/block_pool.hpp"

#include <algorithm>
#include <list>
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

// Blocks are aligned to cache lines. The line before a block holds its header.
constexpr std::size_t alignment = 64;
// Huge pages cause 512 times fewer page faults than pages of 4 KB, and fewer TLB misses.
constexpr std::size_t huge_page = std::size_t{2} << 20U;
// The C library allocates shorter blocks just as fast.
constexpr std::size_t shortest_kept = std::size_t{4} << 10U;
// Kept even when no block is in use, so that small networks never wait for the system.
constexpr std::size_t smallest_reserve = std::size_t{16} << 20U;

struct Header {
    std::size_t capacity;  // usable bytes after the header
};
static_assert(sizeof(Header) <= alignment);

constexpr std::align_val_t alignment_of(std::size_t capacity) noexcept {
    return std::align_val_t{capacity >= huge_page ? huge_page : alignment};
}

Header* allocate(std::size_t capacity) {
    void* memory = ::operator new(alignment + capacity, alignment_of(capacity));
#if defined(__linux__)
    // Only a hint: a failure does no harm.
    if (capacity >= huge_page) static_cast<void>(madvise(memory, alignment + capacity, MADV_HUGEPAGE));
#endif
    return new (memory) Header{capacity};
}

void deallocate(Header* block) noexcept { ::operator delete(block, alignment_of(block->capacity)); }

class BlockPool {
public:
    Header* acquire(std::size_t num_bytes) {
        const std::size_t capacity = (num_bytes + alignment - 1) / alignment * alignment;
        const std::lock_guard<std::mutex> guard(mutex);
        Header* block = take(capacity);
        if (block == nullptr) block = allocate(capacity);
        in_use_ += block->capacity;
        return block;
    }

    void release(Header* block) noexcept {
        const std::lock_guard<std::mutex> guard(mutex);
        in_use_ -= block->capacity;
        if (block->capacity < shortest_kept || !keep(block)) return deallocate(block);
        // The next step needs less than the present one, since steps make networks smaller.
        while (in_reserve_ > std::max(smallest_reserve, in_use_ + in_use_ / 4)) give_back_oldest();
    }

    std::size_t trim() noexcept {
        const std::lock_guard<std::mutex> guard(mutex);
        const std::size_t before = in_reserve_;
        while (!oldest_first_.empty()) give_back_oldest();
        return before;
    }

    PoolUse use() noexcept {
        const std::lock_guard<std::mutex> guard(mutex);
        return {in_use_, in_reserve_};
    }

    std::mutex mutex;

private:
    using Blocks = std::list<Header*>;

    /// The shortest reserved block that fits, or null if too much of it would stay unused.
    ///
    /// A block below a huge page may be 9/4 as long as requested. So a network that shrinks at every step goes on to
    /// write to memory that the caches still hold. With 8/5, slicing Impala at tau 1 took 1.4 times as long.
    Header* take(std::size_t capacity) noexcept {
        const auto found = by_capacity_.lower_bound(capacity);
        const std::size_t longest = capacity < huge_page ? capacity / 4 * 9 : capacity / 5 * 8;
        if (found == by_capacity_.end() || found->first > longest) return nullptr;
        Header* block = *found->second;
        in_reserve_ -= block->capacity;
        oldest_first_.erase(found->second);
        by_capacity_.erase(found);
        return block;
    }

    /// Adds a block to the reserve; false if there is no memory for the entry.
    bool keep(Header* block) noexcept {
        try {
            Blocks one{block};
            by_capacity_.emplace(block->capacity, one.begin());
            oldest_first_.splice(oldest_first_.end(), one);
        } catch (const std::bad_alloc&) {
            return false;
        }
        in_reserve_ += block->capacity;
        return true;
    }

    void give_back_oldest() noexcept {
        Header* block = oldest_first_.front();
        in_reserve_ -= block->capacity;
        by_capacity_.erase(by_capacity_.lower_bound(block->capacity));  // the first of equal keys is the oldest
        oldest_first_.pop_front();
        deallocate(block);
    }

    Blocks oldest_first_;  // the reserve
    std::multimap<std::size_t, Blocks::iterator> by_capacity_;
    std::size_t in_use_ = 0;
    std::size_t in_reserve_ = 0;
};

BlockPool& pool();

#ifdef GSPRUNE_HAS_FORK
void before_fork() noexcept { pool().mutex.lock(); }
void after_fork() noexcept { pool().mutex.unlock(); }
#endif

/// Never destroyed: some tensors outlive the process' static objects.
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
