#include "machine/isa.hpp"

namespace gsprune {

Isa best_isa() noexcept {
#ifdef GSPRUNE_HAS_AVX
    if (__builtin_cpu_supports("avx2")) return Isa::avx2;
#endif
    return Isa::plain;
}

}  // namespace gsprune
