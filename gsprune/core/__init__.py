"""How Python finds the compiled core ``gsprune._core`` and knows that it fits the C++ sources."""
