#include "isa.hpp"

namespace gsprune {

Isa best_isa() noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
    // vbmi permutes 8-bit lanes; machines with AVX-512 but without it (Skylake-X) take the AVX2 kernels.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi")) {
        return Isa::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return Isa::avx2;
#endif
    return Isa::plain;
}

}  // namespace gsprune
