"""``cupy.RawModule``: the same CUDA source, compiled as C++ and run on the CPU, one fiber per CUDA thread.

What a launch may not do raises: arguments of another type than the kernel's parameter, threads and shared memory beyond
the limits, going outside of an array or of shared memory, writing to a ``const`` array, addresses that are not aligned,
waiting at a barrier for threads that never come. Shared memory and asynchronous copies to it hold poison as long as
CUDA allows them to. Two things that the compiler for a GPU does are left out: a * b + c is not contracted to one
rounding, and float32 numbers below 1.2e-38 are not flushed to zero.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emulated_cupy import compiling
from emulated_cupy.arrays import ndarray, unwrap
from emulated_cupy.machine import MACHINE, SCHEDULES
from emulated_cupy.streams import current_stream

_SHARED_BYTES_WITHOUT_ASKING = 48 << 10
_MAX_GRID_Y = 65535  # blocks, in the second and third direction
_ERRORS = (RuntimeError, IndexError)
_MESSAGE_BYTES = 1000
_ALIGNMENT = 16  # bytes; no kernel asks for more
_A_SCALAR = -1  # instead of a number of bytes


@dataclass(frozen=True)
class Parameter:
    """What a kernel's parameter takes: a scalar, or an array."""

    name: str
    type_name: str  # of NumPy's dtype; "any" for void and vectors
    is_pointer: bool
    is_constant: bool
    alignment: int

    @cached_property
    def dtypes(self) -> tuple[np.dtype, ...]:
        """What an array may consist of, unless it is empty: halves travel as unsigned short. A scalar is the first."""
        names = {"any": (), "unknown": (), "uint16": ("uint16", "float16")}.get(self.type_name, (self.type_name,))
        return tuple(np.dtype(name) for name in names)

    def check(self, argument: Any) -> None:
        """Raise if it is not what the kernel takes; CuPy passes whatever it is given."""
        if isinstance(argument, ndarray):
            self._check_array(argument)
        elif not isinstance(argument, np.generic):
            raise TypeError(f"argument '{self.name}' is of {type(argument)}, not a NumPy scalar or a device array")
        elif self.is_pointer or argument.dtype not in self.dtypes[:1]:
            raise TypeError(f"argument '{self.name}' is a scalar {argument.dtype}, not {self}")

    def _check_array(self, array: ndarray) -> None:
        values = unwrap(array)
        if not self.is_pointer or (self.dtypes and values.dtype not in self.dtypes):
            raise TypeError(f"argument '{self.name}' is an array of {array.dtype}, not {self}")
        if not values.flags.c_contiguous:
            raise ValueError(f"argument '{self.name}' is not C-contiguous, and CuPy passes an address alone")
        if array.offset % self.alignment:
            raise ValueError(f"argument '{self.name}' is not aligned to {self.alignment} bytes")

    def pass_on(self, argument: Any) -> compiling.Argument:
        name = self.name.encode()
        if isinstance(argument, ndarray):
            offset = argument.offset % _ALIGNMENT
            return compiling.Argument(name, argument.address, argument.nbytes, offset, self.is_constant)
        return compiling.Argument(name, argument.ctypes.data, _A_SCALAR, 0, True)

    def __str__(self) -> str:
        return f"{self.type_name}{'*' if self.is_pointer else ''}"


class RawModule:
    """See ``cupy.RawModule``; of its options, what fastnet does not use is not known here.

    Attributes
    ----------
    code : str
    reached : ctypes array of bytes, by line
        Whether a launch has reached a barrier on that line of the code.
    """

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        if not isinstance(options, tuple) or not all(isinstance(option, str) for option in options):
            raise TypeError("compiler options must be a tuple of strings")
        self.code = code
        self.options = options
        self.reached = (ctypes.c_ubyte * (code.count("\n") + 2))()
        self._kernels: dict[str, RawKernel] = {}

    def get_function(self, name: str) -> RawKernel:
        if MACHINE.compiler_error is not None:
            raise MACHINE.compiler_error
        if name not in self._kernels:
            MACHINE.refuse_while_capturing("compiling a module")
            kernels = compiling.compile_module(self.code, self.options, MACHINE.compute_capability)
            if name not in kernels:
                raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
            self._kernels[name] = RawKernel(self, name, *kernels[name])
        return self._kernels[name]


class RawKernel:
    """A kernel of a module.

    Attributes
    ----------
    parameters : list of Parameter
    max_threads : int
        Per block, as ``__launch_bounds__`` says.
    is_loaded : bool
        Drivers may put this off until it is launched, or asked about.
    """

    def __init__(
        self, module: RawModule, name: str, kernel: compiling.Kernel, parameter_names: tuple[str, ...]
    ) -> None:
        self.name = name
        self.is_loaded = False
        self.max_threads = kernel.max_threads
        self.parameters = [
            Parameter(name, p.type.decode(), bool(p.is_pointer), bool(p.is_constant), p.alignment)
            for name, p in zip(parameter_names, kernel.parameters[: kernel.n_parameters], strict=True)
        ]
        self.compiled = kernel
        self.module = module
        self._max_shared_bytes: dict[int, int] = {}  # by device

    @property
    def local_size_bytes(self) -> int:
        self.is_loaded = True
        return 0  # of which the CPU's compiler says nothing

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._max_shared_bytes.get(MACHINE.current_device, _SHARED_BYTES_WITHOUT_ASKING)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, n_bytes: int) -> None:
        if n_bytes > MACHINE.shared_memory_per_block_optin:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {n_bytes} bytes of shared memory for kernel {self.name}")
        self._max_shared_bytes[MACHINE.current_device] = n_bytes

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0) -> None:
        self._check_launch(grid, block, shared_mem)
        if len(args) != len(self.parameters):
            raise TypeError(f"kernel {self.name} takes {len(self.parameters)} arguments, not {len(args)}")
        for parameter, argument in zip(self.parameters, args, strict=True):
            try:
                parameter.check(argument)
            except (TypeError, ValueError) as error:
                raise type(error)(f"kernel {self.name}: {error}") from None
        launch = _Launch(self, grid, block, args, shared_mem)
        stream = current_stream()
        if not self.is_loaded:
            MACHINE.refuse_while_capturing("loading a kernel")
            self.is_loaded = True
        if stream.recorded is not None:
            stream.recorded.append(launch)
        else:
            MACHINE.refuse_while_capturing("a launch on another stream")
            stream.require_order()
            launch.run()

    def _check_launch(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("grid and block must be tuples")
        invalid = f"CUDA_ERROR_INVALID_VALUE: kernel {self.name} launched with"
        if min(*grid, *block) < 1 or max(len(grid), len(block)) > 3 or max((*grid, 1)[1:]) > _MAX_GRID_Y:
            raise RuntimeError(f"{invalid} grid {grid} and block {block}")
        if math.prod(block) > min(compiling.MAX_THREADS, self.max_threads):
            raise RuntimeError(f"{invalid} {math.prod(block)} threads per block; its bounds say {self.max_threads}")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError(
                f"{invalid} {shared_mem} bytes of shared memory; its max_dynamic_shared_size_bytes is "
                f"{self.max_dynamic_shared_size_bytes}"
            )


class _Launch:
    """A launch whose arguments were checked: to be run now, or whenever its graph is. It keeps no array alive."""

    def __init__(self, kernel: RawKernel, grid: tuple, block: tuple, arguments: tuple, shared_mem: int) -> None:
        self._kernel = kernel
        self._grid, self._block, self._shared_mem = (*grid, 1, 1)[:3], (*block, 1, 1)[:3], shared_mem
        self._scalars = [np.array(a) if isinstance(a, np.generic) else None for a in arguments]  # have addresses
        passed = [
            parameter.pass_on(argument if scalar is None else scalar)
            for parameter, argument, scalar in zip(kernel.parameters, arguments, self._scalars, strict=True)
        ]
        self._arguments = (compiling.Argument * len(passed))(*passed)
        self._owners = [weakref.ref(a.owner) if isinstance(a, ndarray) else None for a in arguments]

    def run(self) -> None:
        for parameter, owner in zip(self._kernel.parameters, self._owners, strict=True):
            if owner is not None and owner() is None:
                raise RuntimeError(
                    f"a graph launches kernel {self._kernel.name}, and the array that was its argument "
                    f"'{parameter.name}' is gone: a GPU would read and write what has come in its place"
                )
        MACHINE.n_operations += 1
        reached = self._kernel.module.reached
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        launch = compiling.Launch(
            kernel=ctypes.pointer(self._kernel.compiled),
            arguments=self._arguments,
            reached=ctypes.addressof(reached),
            message=ctypes.addressof(message),
            n_lines=len(reached),
            message_size=_MESSAGE_BYTES,
            grid=self._grid,
            block=self._block,
            shared_bytes=self._shared_mem,
            schedule=SCHEDULES.index(MACHINE.schedule),
            deleted_line=-1 if MACHINE.deleted_line is None else MACHINE.deleted_line,
            truncating=MACHINE.truncating_tensor_cores,
            seed=MACHINE.n_operations,
        )
        error = compiling.runtime().launch(ctypes.byref(launch))
        if error:
            raise _ERRORS[error - 1](f"kernel {self._kernel.name}: {message.value.decode()}")
