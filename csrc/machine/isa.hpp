#pragma once

// AVX kernels need a compiler with per-function instruction sets.
#if defined(__x86_64__) && defined(__GNUC__)
#define GSPRUNE_HAS_AVX 1
#endif

namespace gsprune {

/// Instruction sets with their own kernels, from the most general to the fastest. All give the same bits.
enum class Isa { plain, avx2 };
constexpr const char* isa_names[] = {"plain", "avx2"};

/// The fastest instruction set that both this machine and this build support.
Isa best_isa() noexcept;

}  // namespace gsprune
