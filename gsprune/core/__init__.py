"""Finds the compiled core ``gsprune._core`` and checks that it was built from the present C++ sources."""
