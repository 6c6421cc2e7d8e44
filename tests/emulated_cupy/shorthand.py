"""Short ways for tests to put arrays on the emulated device, and to load and run kernels of a few lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from emulated_cupy.machine import MACHINE, SCHEDULES


def device(values: Any, dtype: Any = None) -> Any:
    return sys.modules["cupy"].asarray(np.asarray(values, dtype))


def load(code: str, options: tuple[str, ...] = ()) -> Any:
    return sys.modules["cupy"].RawModule(code=code, options=options)


def go(body: str, parameters: str = "float* x") -> str:
    """Source of a kernel called `go`."""
    return f'extern "C" __global__ void go({parameters}) {{ {body} }}'


def run(
    code: str, *arguments: Any, grid: tuple[int, ...] = (1,), block: tuple[int, ...] = (32,), shared_mem: int = 0
) -> None:
    """Launch the kernel called `go`."""
    load(code).get_function("go")(grid, block, arguments, shared_mem=shared_mem)


def in_every_schedule(compute: Callable[[], Any]) -> list[Any]:
    """What is computed with each order of threads and blocks; the machine's is as before afterwards."""
    before, results = MACHINE.schedule, []
    try:
        for MACHINE.schedule in SCHEDULES:
            results.append(compute())
    finally:
        MACHINE.schedule = before
    return results
