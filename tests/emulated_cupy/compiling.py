"""CUDA modules as shared libraries for the CPU, and the runtime that executes their kernels."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from emulated_cupy.elementwise import COMPILER

MAX_THREADS = 1024  # per block

_FOLDER = Path(__file__).parent
_RUNTIME = ("fibers.cpp", "barriers.cpp", "warps.cpp", "arguments.cpp", "shared_memory.cpp", "launch.cpp", "errors.cpp")
_RUNTIME_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")

# As on a device: no contraction of a * b + c here, as it is the compiler's choice there; pointers may alias.
_FLAGS = ("-O0", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-exceptions", "-shared", "-fPIC", "-w")
# Modules may have functions of the same name.
_VISIBILITY = ("-fvisibility=hidden",)
# Checks that report to the runtime, without the compiler's own library.
_CHECKS = ("-fsanitize=alignment,bounds,null", "-fno-sanitize-recover=all", "-nodefaultlibs")

_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\s*(?=\()")
# Once launch bounds, which may be on either side of the type, are replaced by their number in the source.
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:bounds_(?P<before>\d+)\s+)?void\s+(?:bounds_(?P<bounds>\d+)\s+)?'
    r"(?P<name>\w+)\s*\((?P<parameters>[^()]*)\)\s*{"
)


class CompileException(Exception):  # noqa: N818  CuPy's name
    """As ``cupy.cuda.compiler.CompileException``: the compiler's messages."""


# --- What emulation.h and runtime.h declare --------------------------------------------------------------------------


class Parameter(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("alignment", ctypes.c_int),
        ("is_pointer", ctypes.c_int),
        ("is_constant", ctypes.c_int),
    )


class Kernel(ctypes.Structure):
    _fields_ = (
        ("run", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(Parameter)),
        ("n_parameters", ctypes.c_int),
        ("max_threads", ctypes.c_int),
    )


class Argument(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("n_bytes", ctypes.c_longlong),
        ("offset", ctypes.c_int),
        ("is_constant", ctypes.c_int),
    )


class Launch(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.POINTER(Kernel)),
        ("arguments", ctypes.POINTER(Argument)),
        ("reached", ctypes.c_void_p),
        ("message", ctypes.c_void_p),
        ("n_lines", ctypes.c_int),
        ("message_size", ctypes.c_int),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_int),
        ("schedule", ctypes.c_int),
        ("deleted_line", ctypes.c_int),
        ("truncating", ctypes.c_int),
        ("seed", ctypes.c_uint),
    )


# --- Compiling -------------------------------------------------------------------------------------------------------


@cache
def runtime() -> ctypes.CDLL:
    """The library whose function ``launch`` runs a kernel."""
    library = Path(_folder().name) / "runtime.so"
    source = "\n".join(f'#include "{name}"' for name in _RUNTIME)  # as one, since each includes the same headers
    _run_compiler("-x", "c++", *_RUNTIME_FLAGS, "-o", library, "-", source=source)
    return ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)  # modules find its functions


@cache
def compile_module(
    code: str, options: tuple[str, ...], compute_capability: str
) -> dict[str, tuple[Kernel, tuple[str, ...]]]:
    """Kernels by name, each with the names of its parameters.

    Raises
    ------
    CompileException
        The code is not valid, for what it includes of ``FASTNET_EMULATED``.
    """
    runtime()
    source = "\n".join(["#define FASTNET_EMULATED", '#include "kernel_description.h"', '#line 1 "module.cu"', code])
    defines = [option for option in options if option.startswith("-D")] + [f"-D__CUDA_ARCH__={compute_capability}0"]
    source = _run_compiler("-x", "c++", "-E", "-std=c++17", *defines, "-", source=source)
    source, bounds = _take_launch_bounds(source)
    found = list(_KERNEL.finditer(source))
    source = re.sub(r"\b(?:__global__|bounds_\d+)\b", "", source)
    descriptions = [_description(kernel, bounds) for kernel in found]
    with tempfile.NamedTemporaryFile(suffix=".so", dir=_folder().name) as library:
        _run_compiler(
            *("-x", "c++-cpp-output", *_FLAGS, *_VISIBILITY, *_CHECKS, "-o", library.name, "-"),
            source="\n".join([source, *descriptions]),
        )
        loaded = ctypes.CDLL(library.name)  # stays loaded when its file is gone
    return {
        kernel["name"]: (Kernel.in_dll(loaded, f"kernel_{kernel['name']}"), _parameter_names(kernel["parameters"]))
        for kernel in found
    }


def _take_launch_bounds(source: str) -> tuple[str, list[str]]:
    """The source with ``bounds_0`` and so on instead of launch bounds, and what they said in their brackets."""
    parts, bounds, end = [], [], 0
    while found := _LAUNCH_BOUNDS.search(source, end):
        parts.append(source[end : found.start()])
        end, depth = found.end(), 0
        while depth or end == found.end():
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        parts.append(f" bounds_{len(bounds)} ")
        bounds.append(source[found.end() + 1 : end - 1])
    return "".join([*parts, source[end:]]), bounds


def _description(kernel: re.Match, bounds: list[str]) -> str:
    """What tells the runtime of a kernel: see ``emulation.h``."""
    index = kernel["before"] or kernel["bounds"]
    # What follows the number of threads, after a comma, is the number of blocks.
    threads = f"((int[]){{{bounds[int(index)]}}})[0]" if index else MAX_THREADS
    return (
        f'extern "C" __attribute__((visibility("default"))) emulation::Kernel kernel_{kernel["name"]};\n'
        f"emulation::Kernel kernel_{kernel['name']} = emulation::Launcher<{kernel['name']}>::describe({threads});"
    )


def _parameter_names(parameters: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text)[-1] for text in parameters.split(",") if text.strip() not in ("", "void"))


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="emulated_cupy")


def _run_compiler(*arguments: str | Path, source: str) -> str:
    command = [COMPILER, *map(str, arguments)]
    done = subprocess.run(command, cwd=_FOLDER, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileException(done.stderr)
    return done.stdout
