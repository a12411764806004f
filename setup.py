"""Builds the compiled core; everything else of the build stands in pyproject.toml."""

import runpy
import shutil
import sys
import sysconfig
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import BaseError, CCompilerError

# Small files, some of which hold the same kernels for several instruction sets: compiled side by side.
ParallelCompile("GSPRUNE_BUILD_JOBS").install()

fingerprint = runpy.run_path("gsprune/core/sources.py")["fingerprint"]


class BuildCore(build_ext):
    """Compiles the core, or ends with one line that says what is missing and how to get it."""

    def build_extensions(self) -> None:
        """Check for a compiler and Python's headers before compiling, so that the reason is the last line."""
        missing = self._missing()
        if missing:
            raise SystemExit(f"gsprune: {missing}")
        try:
            super().build_extensions()
        except (BaseError, CCompilerError) as error:
            raise SystemExit(
                f"gsprune: the C++ core did not compile ({error}); the compiler's messages stand above. It needs "
                "C++17: GCC 9, Clang 10 or newer. The environment variable CXX chooses another compiler"
            ) from error

    def _missing(self) -> str | None:
        for command in (self.compiler.compiler_so_cxx[0], self.compiler.linker_so_cxx[0]):
            if shutil.which(command) is None:
                return (
                    f"no C++ compiler was found ({command}). Install one (Debian, Ubuntu: apt-get install g++; "
                    "Fedora: dnf install gcc-c++; macOS: xcode-select --install), or name one in the environment "
                    "variable CXX, then run pip install again"
                )
        headers = Path(sysconfig.get_path("include"))
        if not (headers / "Python.h").is_file():
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            return (
                f"Python.h was not found in {headers}. Install Python's headers (Debian, Ubuntu: apt-get install "
                f"python{version}-dev; Fedora: dnf install python3-devel), then run pip install again"
            )
        return None


setup(
    ext_modules=[
        Pybind11Extension(
            "gsprune._core",
            sorted(glob("csrc/*/*.cpp")),
            include_dirs=["csrc"],
            # The times of the folders tell of deleted files, which change the fingerprint too.
            depends=["csrc", "gsprune/core/sources.py", *sorted(glob("csrc/*")), *sorted(glob("csrc/*/*.[hi]*"))],
            define_macros=[("GSPRUNE_SOURCES", f'"{fingerprint(Path("csrc"))}"')],
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
    cmdclass={"build_ext": BuildCore},
)
