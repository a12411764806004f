"""Compiles the Triton kernels ahead of time, without a GPU, and tells what they need of one.

    python scripts/kernel_resources.py                # a markdown table
    python scripts/kernel_resources.py --json         # the same as JSON

Registers, stack and shared memory are cuobjdump's on the finished cubin; spills are what ptxas says (-v) when it
compiles the same PTX. Both tools come with triton. This must be a process of its own: under TRITON_INTERPRET=1 nothing
can be compiled.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gsprune.kernels import score
from gsprune.kernels import slice as slicing

_SCORE_OPTIONS = {"num_warps": score.SCORE_WARPS, "maxnreg": score.SCORE_REGISTERS}
_KERNELS = {
    **{
        f"score[{name}]": (score.score_kernel, {"STATISTIC": code}, _SCORE_OPTIONS)
        for name, code in score.STATISTIC_CODES.items()
    },
    "fold": (score.fold_kernel, {}, {"num_warps": score.FOLD_WARPS}),
    "slice": (slicing.slice_kernel, {}, {"num_warps": slicing.SLICE_WARPS}),
}
_TYPES = {"table_ptr": "*i64", "partial_ptr": "*fp64", "out_ptr": "*fp64", "base": "i32", "keep_base": "i32"}


@dataclass(frozen=True)
class Resources:
    """What one kernel needs on one architecture.

    Attributes:
        kernel: Its name, with the constants it was compiled for.
        architecture: Such as "sm_90".
        warps: Warps per program.
        registers: Per thread.
        spilled_bytes: Spill stores and loads per thread.
        stack_bytes: Per thread.
        shared_bytes: Per program.
        float_fusions: Multiply-adds of floats in the PTX that round once where the definition rounds twice.
    """

    kernel: str
    architecture: str
    warps: int
    registers: int
    spilled_bytes: int
    stack_bytes: int
    shared_bytes: int
    float_fusions: int


def compile_one(name: str, capability: int) -> Resources:
    """Compiles one kernel for one architecture, 80 or 90."""
    kernel, constants, options = _KERNELS[name]
    signature = {p.name: "constexpr" if p.name in constants else _TYPES.get(p.name, "i32") for p in kernel.params}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants))
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={**options, "enable_fp_fusion": False})
    usage = _usage(compiled.asm["cubin"])
    return Resources(
        kernel=name,
        architecture=f"sm_{capability}",
        warps=options["num_warps"],
        registers=usage["REG"],
        spilled_bytes=_spills(compiled.asm["ptx"], capability),
        stack_bytes=usage["STACK"],
        shared_bytes=compiled.metadata.shared,
        float_fusions=len(re.findall(r"\bfma\.", compiled.asm["ptx"])),
    )


def _tool(name: str) -> str:
    """A program of the CUDA toolkit that comes with triton."""
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _usage(cubin: bytes) -> dict[str, int]:
    """Cuobjdump's resource usage: REG, STACK, SHARED, LOCAL and so on."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_tool("cuobjdump"), "-res-usage", file.name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: int(value) for key, value in re.findall(r"\b([A-Z]+):(\d+)", output)}


def _spills(ptx: str, capability: int) -> int:
    """Bytes that ptxas spills, stores and loads together."""
    architecture = re.search(r"\.target (sm_\w+)", ptx)
    with tempfile.NamedTemporaryFile(suffix=".ptx", mode="w") as file:
        file.write(ptx)
        file.flush()
        target = architecture.group(1) if architecture else f"sm_{capability}"
        # The newer of the two that triton brings: triton 3.9's PTX is too new for the other.
        command = [_tool("ptxas-blackwell"), "-v", "--fmad=false", f"-arch={target}", "-o", "/dev/null", file.name]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return sum(int(size) for size in re.findall(r"(\d+) bytes spill", report))


def main(arguments: list[str]) -> int:
    """Prints the table of all kernels on the architectures asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of markdown")
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90], help="compute capabilities, times ten")
    parser.add_argument("--kernel", nargs="+", default=list(_KERNELS), choices=list(_KERNELS), help="which kernels")
    options = parser.parse_args(arguments)
    found = [compile_one(name, capability) for name in options.kernel for capability in options.capability]
    if options.json:
        print(json.dumps([asdict(resources) for resources in found], indent=1))
        return 0
    header = list(asdict(found[0]))
    print(f"triton {triton.__version__}\n")
    print("| " + " | ".join(column.replace("_", " ") for column in header) + " |")
    print("|" + " --- |" * len(header))
    for resources in found:
        print("| " + " | ".join(str(value) for value in asdict(resources).values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
