"""Compile CUDA source for an architecture with NVRTC alone: no CuPy, no driver, no GPU.

The compiler is that of the wheel ``nvidia-cuda-nvrtc``, which ``fastnet[cuda13]`` brings along with CuPy. So what
compiles here compiles for users, and what it says of registers and spills holds on their devices.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

_WHEEL = "nvidia-cuda-nvrtc"
_N_COMPILERS = 2  # threads; NVRTC compiles without Python's lock

_USAGE = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


class CompileError(Exception):
    """The compiler's messages."""


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a multiprocessor.

    Attributes
    ----------
    registers : int
        Per thread.
    stack_bytes, spill_stores, spill_loads : int
        Bytes of local memory per thread: of all, of instructions that write and read what registers have no room for.
    shared_bytes : int
        Static shared memory per block.
    """

    registers: int
    stack_bytes: int
    spill_stores: int
    spill_loads: int
    shared_bytes: int


def compile_source(code: str, options: Sequence[str], architecture: int) -> dict[str, Usage]:
    """Compile as CuPy does, which appends ``-ftz=true``; what each kernel takes.

    Raises
    ------
    CompileError
        The source is not valid CUDA for that architecture.
    """
    program = ctypes.c_void_p()
    library = _library()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"module.cu", 0, None, None))
    try:
        passed = [*options, f"-arch=sm_{architecture}", "-ftz=true", "--ptxas-options=-v"]
        failed = library.nvrtcCompileProgram(
            program, len(passed), (ctypes.c_char_p * len(passed))(*(option.encode() for option in passed))
        )
        log = _read_log(program)
    finally:
        _check(library.nvrtcDestroyProgram(ctypes.byref(program)))
    if failed:
        raise CompileError(f"sm_{architecture}: {log}")
    return {found["name"]: _parse(found) for found in _USAGE.finditer(log)}


def compile_for_all(
    code: str, options: Sequence[str] = ("-std=c++17",), architectures: Sequence[int] = ARCHITECTURES
) -> dict[int, dict[str, Usage]]:
    """By architecture and kernel: see :func:`compile_source`."""
    _library()
    with ThreadPoolExecutor(_N_COMPILERS) as pool:
        usages = pool.map(lambda architecture: compile_source(code, options, architecture), architectures)
        return dict(zip(architectures, usages, strict=True))


def _parse(found: re.Match) -> Usage:
    shared = re.search(r"(\d+) bytes smem", found["rest"])
    numbers = (int(found[name]) for name in ("registers", "stack", "stores", "loads"))
    return Usage(*numbers, shared_bytes=int(shared[1]) if shared else 0)


@cache
def _library() -> ctypes.CDLL:
    try:
        wheel = importlib.metadata.distribution(_WHEEL)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"NVRTC is not installed: pip install {_WHEEL}")
    files = [Path(str(wheel.locate_file(file))) for file in wheel.files or ()]

    def load(pattern: str) -> ctypes.CDLL:
        return ctypes.CDLL(str(next(file for file in files if re.fullmatch(pattern, file.name))))

    load(r"libnvrtc-builtins\.so\.[\d.]+")  # NVRTC opens it by name, so it must be there already
    return load(r"libnvrtc\.so\.\d+")


def _read_log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(_library().nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _check(_library().nvrtcGetProgramLog(program, log))
    return log.value.decode()


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC reports status {status}")
