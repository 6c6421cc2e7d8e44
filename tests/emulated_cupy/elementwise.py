"""``cupy.ElementwiseKernel``: the same CUDA source, compiled as C++ and run one "thread" after the other."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emulated_cupy.arrays import empty, ndarray, unwrap
from emulated_cupy.machine import MACHINE

COMPILER = shutil.which(os.environ.get("CXX", "g++"))

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
}

# The types that each placeholder may stand for; kernels are compiled for all of them at once.
_CANDIDATES = {"T": ("float32", "float64"), "X": ("uint8", "float32", "float64"), "I": ("int32", "int64")}

_PROLOGUE = """
#include <cmath>
#include <cstddef>
using namespace std;
#define __device__
#define __forceinline__ inline
static int out_of_bounds;
template<typename F> struct raw {  // an array that is indexed by the kernel itself
    F* data; long long size;
    F& operator[](long long k) const {
        if (k < 0 || k >= size) { out_of_bounds = 1; k = 0; }
        return data[k];
    }
};
"""

# From the last thread to the first: what depends on the order of threads is wrong on a GPU, and shows.
_FUNCTION = """
extern "C" int {symbol}(long long size, void** arguments, const long long* steps, const long long* sizes) {{
    {typedefs}
    out_of_bounds = 0;
    for (ptrdiff_t i = size - 1; i >= 0; --i) {{
        {declarations}
        {operation};
    }}
    return out_of_bounds;
}}
"""


@dataclass(frozen=True)
class _Parameter:
    type_name: str
    name: str
    raw: bool
    constant: bool

    @classmethod
    def parse(cls, text: str, constant: bool) -> _Parameter:
        *qualifiers, type_name, name = text.split()
        assert qualifiers in ([], ["raw"]), text
        assert name != "i", "i is the index"
        return cls(type_name, name, bool(qualifiers), constant)

    def declare(self, position: int, types: dict[str, str]) -> str:
        c_type = ("const " if self.constant else "") + _C_TYPES[types.get(self.type_name, self.type_name)]
        pointer = f"(({c_type}*) arguments[{position}])"
        if self.raw:
            return f"const raw<{c_type}> {self.name} = {{{pointer}, sizes[{position}]}};"
        return f"{c_type} &{self.name} = {pointer}[i * steps[{position}]];"


class ElementwiseKernel:
    """See ``cupy.ElementwiseKernel``; of its options, what fastnet does not use is not known here."""

    made: list[ElementwiseKernel] = []  # noqa: RUF012
    functions: dict[tuple[Any, ...], Any] = {}  # noqa: RUF012  by source and types, of all tests

    def __init__(self, in_params: str, out_params: str, operation: str, name: str, preamble: str = "") -> None:
        self.declared = in_params, out_params
        self.inputs = tuple(_Parameter.parse(text, constant=True) for text in in_params.split(","))
        self.outputs = tuple(_Parameter.parse(text, constant=False) for text in out_params.split(","))
        self.operation, self.name, self.preamble = operation, name, preamble
        self.placeholders = sorted({p.type_name for p in self.parameters if len(p.type_name) == 1})
        ElementwiseKernel.made.append(self)

    @property
    def parameters(self) -> tuple[_Parameter, ...]:
        return self.inputs + self.outputs

    def key(self, types: dict[str, str]) -> tuple[Any, ...]:
        return self.parameters, self.operation, self.name, self.preamble, *(types[p] for p in self.placeholders)

    def __call__(self, *arguments: Any) -> Any:
        if MACHINE.compiler_error is not None:
            raise MACHINE.compiler_error
        if len(arguments) not in (len(self.inputs), len(self.parameters)):
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(arguments)}")
        MACHINE.refuse_while_capturing(f"kernel {self.name}")
        MACHINE.n_operations += 1
        types = self._resolve_types(arguments)
        shape = self._broadcast_shape(arguments)
        outputs = list(arguments[len(self.inputs) :])
        for parameter in self.outputs[len(outputs) :]:
            assert not parameter.raw, "Output array size is Undecided"
            outputs.append(empty(shape, types.get(parameter.type_name, parameter.type_name)))
        for parameter, output in zip(self.outputs, outputs, strict=True):
            if not parameter.raw and output.shape != shape:
                raise ValueError("Out shape is mismatched")
        self._launch(types, shape, [*arguments[: len(self.inputs)], *outputs])
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _resolve_types(self, arguments: tuple[Any, ...]) -> dict[str, str]:
        """Placeholder -> type, from the arrays alone: scalars are converted to what their parameter says."""
        types: dict[str, str] = {}
        for parameter, argument in zip(self.parameters, arguments, strict=False):
            if isinstance(argument, ndarray):
                known = parameter.type_name
                if len(known) == 1:
                    known = types.setdefault(parameter.type_name, argument.dtype.name)
                if known != argument.dtype.name:
                    raise TypeError(f"Type is mismatched. {parameter.name} {argument.dtype.name} {known}")
            elif not isinstance(argument, int | float | np.generic) or not parameter.constant:
                raise TypeError(f"Unsupported type {type(argument)}")
        return types

    def _broadcast_shape(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        shapes = [
            argument.shape
            for parameter, argument in zip(self.parameters, arguments, strict=False)
            if isinstance(argument, ndarray) and not parameter.raw
        ]
        if not shapes:
            raise ValueError("Loop size is undecided.")
        return np.broadcast_shapes(*shapes)

    def _launch(self, types: dict[str, str], shape: tuple[int, ...], arguments: list[Any]) -> None:
        values, steps = [], []
        for parameter, argument in zip(self.parameters, arguments, strict=True):
            if isinstance(argument, ndarray):
                value, step = unwrap(argument), 1
                if not parameter.raw:
                    value, step = (value, 0) if value.ndim == 0 else (np.broadcast_to(value, shape), 1)
                if parameter.constant:
                    value = np.ascontiguousarray(value)  # the array itself where it can be: it may be an output too
                assert value.flags.c_contiguous
            else:
                value, step = np.array(argument, types.get(parameter.type_name, parameter.type_name)), 0
            values.append(value)
            steps.append(step)
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        integers = ctypes.c_longlong * len(values)
        sizes = integers(*(value.size for value in values))
        n_threads = ctypes.c_longlong(int(np.prod(shape)))
        if self._function(types)(n_threads, pointers, integers(*steps), sizes):
            raise IndexError(f"kernel {self.name} went out of bounds")

    def _function(self, types: dict[str, str]) -> Any:
        if self.key(types) not in ElementwiseKernel.functions:
            _compile([kernel for kernel in ElementwiseKernel.made if not kernel.is_compiled()])
        return ElementwiseKernel.functions[self.key(types)]

    def is_compiled(self) -> bool:
        return self.key({name: candidates[0] for name, candidates in _CANDIDATES.items()}) in self.functions


def _compile(kernels: list[ElementwiseKernel]) -> None:
    """One shared library of all the kernels, for all the types they may be called with."""
    source = [_PROLOGUE, *dict.fromkeys(kernel.preamble for kernel in kernels)]
    symbols = {}
    for kernel in kernels:
        for chosen in itertools.product(*(_CANDIDATES[name] for name in kernel.placeholders)):
            types = dict(zip(kernel.placeholders, chosen, strict=True))
            symbol = "_".join([kernel.name, *chosen])
            symbols[kernel.key(types)] = symbol
            source.append(
                _FUNCTION.format(
                    symbol=symbol,
                    typedefs=" ".join(f"typedef {_C_TYPES[type_name]} {name};" for name, type_name in types.items()),
                    declarations="\n".join(p.declare(k, types) for k, p in enumerate(kernel.parameters)),
                    operation=kernel.operation,
                )
            )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cpp"
        path.write_text("\n".join(source))
        library = path.with_suffix(".so")
        command = [COMPILER, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unused", "-o", library, path]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))  # stays loaded when its file is gone
    for key, symbol in symbols.items():
        ElementwiseKernel.functions[key] = getattr(loaded, symbol)
