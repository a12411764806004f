#pragma once

namespace gsprune {

/// Instruction sets with kernels of their own, from the most general to the fastest. All give the same bits.
enum class Isa { plain, avx2, avx512 };

/// The fastest one that this machine and this build have.
Isa best_isa() noexcept;

}  // namespace gsprune
