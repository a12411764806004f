#include "machine/last_level_cache.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace gsprune {

namespace {

/// The largest cache of the first processor in Linux's list. On processors with several dies `sysconf` returns the sum
/// over all dies, but a core fills the cache of its own die only.
std::int64_t listed_bytes() {
    std::int64_t largest = 0;
    for (int index = 0; index < 8; ++index) {
        const std::string path = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size";
        std::FILE* file = std::fopen(path.c_str(), "r");
        if (file == nullptr) break;
        long long size = 0;
        char unit = '\0';
        const int num_read = std::fscanf(file, "%lld%c", &size, &unit);
        std::fclose(file);
        const int shift = unit == 'K' ? 10 : unit == 'M' ? 20 : 0;
        if (num_read >= 1 && size > 0 && size < (1LL << 40U)) {
            largest = std::max(largest, static_cast<std::int64_t>(size) << shift);
        }
    }
    return largest;
}

std::int64_t find_bytes() noexcept {
    try {
        if (const std::int64_t listed = listed_bytes(); listed > 0) return listed;
    } catch (...) {  // no memory for a path
        return 0;
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    return std::max<std::int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), 0);
#else
    return 0;
#endif
}

}  // namespace

std::int64_t last_level_cache_bytes() noexcept {
    static const std::int64_t bytes = find_bytes();
    return bytes;
}

}  // namespace gsprune
