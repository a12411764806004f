#include "machine/isa.hpp"

namespace gsprune {

Isa best_isa() noexcept {
#ifdef GSPRUNE_HAS_AVX
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
        return Isa::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
    return Isa::plain;
}

}  // namespace gsprune
