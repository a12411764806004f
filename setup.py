"""Builds the compiled core; everything else of the build stands in pyproject.toml."""

from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

# Small files, six of which hold the same kernels for three instruction sets: compiled side by side.
ParallelCompile("GSPRUNE_BUILD_JOBS").install()

setup(
    ext_modules=[
        Pybind11Extension(
            "gsprune._core",
            sorted(glob("csrc/*.cpp")),
            include_dirs=["csrc"],
            depends=sorted([*glob("csrc/*.hpp"), *glob("csrc/*.inc")]),
            cxx_std=17,
            # Contraction into fma would let the C++ and the Triton statistics round differently.
            extra_compile_args=[
                "-O3",
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-Wall",
                "-Wextra",
                "-Wconversion",
                "-pthread",
            ],
            extra_link_args=["-pthread"],
        )
    ],
    cmdclass={"build_ext": build_ext},
)
