#pragma once

// Kernels for AVX are built where the compiler can build single functions for them.
#if defined(__x86_64__) && defined(__GNUC__)
#define GSPRUNE_HAS_AVX 1
#endif

namespace gsprune {

/// Instruction sets with kernels of their own, from the most general to the fastest. All give the same bits.
enum class Isa { plain, avx2, avx512 };
constexpr const char* isa_names[] = {"plain", "avx2", "avx512"};

/// The fastest one that this machine and this build have.
Isa best_isa() noexcept;

}  // namespace gsprune
