"""Calls of native functions, and of functions that Numba compiles in place, from tests."""

from __future__ import annotations

from numba import njit

from fastnet.backends.numba_backend.kernels.compiling import call
from fastnet.backends.numba_backend.machine_code import load

# A function that Python calls; kernels become parts of it.
compiled = njit(error_model="numpy")


@compiled
def _call(address, arguments):
    call(address, arguments)


def run(native, *arguments):
    """Call a native function, as it is compiled for arguments of the types of these."""
    (address,) = load([native.machine_code(*arguments)])
    _call(address, arguments)
