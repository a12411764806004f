#pragma once

#include <cstddef>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gsprune {

// 512 times fewer page faults than with pages of 4 KB, and fewer misses of the TLB.
constexpr std::size_t huge_page = std::size_t{2} << 20U;

/// Memory of at least a huge page, on huge pages where the system has any; give it back with `free_huge`.
/// Throws std::bad_alloc.
inline void* allocate_huge(std::size_t num_bytes) {
    void* memory = ::operator new(num_bytes, std::align_val_t{huge_page});
#if defined(__linux__)
    static_cast<void>(madvise(memory, num_bytes, MADV_HUGEPAGE));  // a hint: failure changes nothing
#endif
    return memory;
}

inline void free_huge(void* memory) noexcept { ::operator delete(memory, std::align_val_t{huge_page}); }

}  // namespace gsprune
