#include "memory.hpp"

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

constexpr std::size_t alignment = 64;
// From here on glibc may take pages from the system and give them back with every tensor (its threshold starts at 128
// KB).
constexpr std::size_t smallest_pooled = std::size_t{64} << 10U;
constexpr std::size_t page = 4096;
// Blocks from this size on are aligned to it and ask for huge pages: 512 times fewer page faults and TLB misses.
constexpr std::size_t huge_page = std::size_t{2} << 20U;
// Kept in reserve even when nothing is in use, so that small networks never wait for the system.
constexpr std::size_t smallest_reserve = std::size_t{32} << 20U;

/// Stands in the `alignment` bytes before the memory handed out.
struct Header {
    std::size_t capacity;  // usable bytes behind the header
    std::size_t block_alignment;
    bool is_pooled;
};
static_assert(sizeof(Header) <= alignment);

Header* allocate(std::size_t num_bytes) {
    const bool is_pooled = num_bytes >= smallest_pooled;
    const std::size_t unit = num_bytes >= huge_page ? huge_page : is_pooled ? page : alignment;
    const std::size_t grain = is_pooled ? page : alignment;
    const std::size_t total = (num_bytes + alignment + grain - 1) / grain * grain;
    void* memory = ::operator new(total, std::align_val_t{unit});
#if defined(__linux__)
    if (unit == huge_page) static_cast<void>(madvise(memory, total, MADV_HUGEPAGE));  // a hint: failure changes nothing
#endif
    return new (memory) Header{total - alignment, unit, is_pooled};
}

/// Gives the pages behind the first `num_bytes` back to the system, if they are worth it.
///
/// Of large blocks whole huge pages alone: to split one costs more than a step saves. Of small blocks half: giving back
/// page by page takes as long as copying, and a network that shrinks at every step would do it at every step.
void shorten(Header& header, std::size_t num_bytes) noexcept {
    const bool is_huge = header.block_alignment == huge_page && num_bytes >= huge_page / 2;
    const std::size_t grain = is_huge ? huge_page : page;
    const std::size_t needed = (num_bytes + alignment + grain - 1) / grain * grain;
    const std::size_t total = header.capacity + alignment;
    if (total <= needed + needed / (is_huge ? 4 : 1)) return;
#if defined(__linux__)
    // The addresses stay with the block, so that it can be deleted as it was made; only the pages behind them go.
    if (madvise(reinterpret_cast<std::byte*>(&header) + needed, total - needed, MADV_DONTNEED) != 0) return;
    header.capacity = needed - alignment;
#endif
}

void deallocate(Header* header) noexcept {
    const std::size_t unit = header->block_alignment;
    ::operator delete(static_cast<void*>(header), std::align_val_t{unit});
}

struct Pool {
    std::mutex mutex;
    std::multimap<std::size_t, Header*> reserve;  // by capacity
    PoolUse use{0, 0};

    Header* take(std::size_t num_bytes) noexcept {
        const auto found = reserve.lower_bound(num_bytes);
        if (found == reserve.end()) return nullptr;
#if !defined(__linux__)
        if (found->first > 2 * num_bytes) return nullptr;  // too long, and it cannot be shortened
#endif
        Header* header = found->second;
        use.in_reserve -= header->capacity;
        reserve.erase(found);
        return header;
    }

    /// Takes the smallest block out of a reserve that exceeds what the next step can need.
    Header* surplus() noexcept {
        if (use.in_reserve <= std::max(use.in_use + use.in_use / 4, smallest_reserve)) return nullptr;
        const auto smallest = reserve.begin();
        Header* header = smallest->second;
        use.in_reserve -= header->capacity;
        reserve.erase(smallest);
        return header;
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

Header* header_of(void* block) noexcept {
    return reinterpret_cast<Header*>(static_cast<std::byte*>(block) - alignment);
}

}  // namespace

void* acquire_block(std::size_t num_bytes) {
    Header* header = nullptr;
    if (num_bytes >= smallest_pooled) {
        Pool& shared = pool();
        {
            const std::lock_guard<std::mutex> guard(shared.mutex);
            header = shared.take(num_bytes);
            if (header != nullptr) {
                shorten(*header, num_bytes);
                shared.use.in_use += header->capacity;
            }
        }
        if (header == nullptr) {
            header = allocate(num_bytes);
            const std::lock_guard<std::mutex> guard(shared.mutex);
            shared.use.in_use += header->capacity;
        }
    } else {
        header = allocate(num_bytes);
    }
    return reinterpret_cast<std::byte*>(header) + alignment;
}

void release_block(void* block) noexcept {
    Header* header = header_of(block);
    if (!header->is_pooled) {
        deallocate(header);
        return;
    }
    Pool& shared = pool();
    std::unique_lock<std::mutex> guard(shared.mutex);
    shared.use.in_use -= header->capacity;
    try {
        shared.reserve.emplace(header->capacity, header);
        shared.use.in_reserve += header->capacity;
    } catch (const std::bad_alloc&) {
        deallocate(header);
        return;
    }
    while (Header* surplus = shared.surplus()) deallocate(surplus);
}

std::size_t trim_reserve() noexcept {
    Pool& shared = pool();
    const std::lock_guard<std::mutex> guard(shared.mutex);
    const std::size_t freed = shared.use.in_reserve;
    for (const auto& entry : shared.reserve) deallocate(entry.second);
    shared.reserve.clear();
    shared.use.in_reserve = 0;
    return freed;
}

PoolUse pool_use() noexcept {
    Pool& shared = pool();
    const std::lock_guard<std::mutex> guard(shared.mutex);
    return shared.use;
}

}  // namespace gsprune
