"""How near training steps are to what the processor can do: ``python benchmarks/limits.py --out DIR``.

Writes ``limits-DATE.json`` and ``.md``, of the Numba backend; it takes a minute. MNIST is read from FASTNET_DATA.
"""

# Legend: D features, B rows of a tile, P panels, w numbers of a vector.

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import Any

import click
import numpy as np
from numba import njit
from numpy.typing import NDArray

from fastnet.backends.numba_backend.buffers import aligned_rows, read_only
from fastnet.backends.numba_backend.kernels import compiling, sparse
from fastnet.backends.numba_backend.kernels.block_sums import multiply_add, sum_of_rows
from fastnet.backends.numba_backend.kernels.blocks import ROWS, lanes_of, load, splat, store, zeros
from fastnet.backends.numba_backend.layout import TERMS, lanes_of_dtype
from fastnet.backends.numba_backend.machine_code import load as load_code
from fastnet.backends.numba_backend.packing import PackedRows, pack_rows
from fastnet.backends.numba_backend.partition import MOST_PACKED_ROWS, PANELS_OF_ITEM
from fastnet.backends.registry import create_backend
from fastnet.benchmarking import BackendTrial, count_step, describe_machine, n_usable_cpus, time_alternately
from fastnet.workloads import LoadedWorkload
from fastnet.workloads import load as load_workload

BACKEND = "numba"
WORKLOADS = ["mnist-16", "mnist-128", "dense-16", "deep-512", "digits-adam", "dense-adam", "tabular-adam"]
ROUNDS, SECONDS_PER_ROUND = 25, 0.02

# Numbers that stay in an innermost cache, with room to spare.
N_CACHED = 2048

INTRODUCTION = """\
A step of a workload beside the least time in which the processor could do it. Its products are so many multiplications
and additions of whole vectors, *multiply-adds*; those by zero do not count where the samples are packed. *Registers* is
how long they would take if all operands were at hand, which nothing can be faster than. *Cache* is the same with one
operand of each read from the innermost cache, as it must be with packed samples: each of their numbers has a row of the
weight of its own. *Kernels* is what fastnet's own products with packed samples take by themselves, on one tile of them
that stays in the cache, and *sorting* what else their gradient needs in batches. *Reached* is the time in registers
over the best step. Rates are the best of some rounds, on all threads at once. Times are in milliseconds."""

# Does something so many times.
Work = Callable[[int], None]

compiled = njit(nogil=True, error_model="numpy", fastmath={"contract"})


@dataclass(frozen=True)
class Limit:
    """A step, and its limits, in seconds; what packed samples alone have is None for others.

    Attributes
    ----------
    workload : str
    multiply_adds : float
        Of whole vectors.
    step, best_step : float
        Measured: the median, and the best round.
    registers, cache : float
        What the products need if all operands are in registers, and if one of each is in the cache.
    kernels, sorting : float or None
        What fastnet's products with packed samples take, and sorting these.
    """

    workload: str
    multiply_adds: float
    step: float
    best_step: float
    registers: float
    cache: float | None
    kernels: float | None
    sorting: float | None


@compiled
def in_registers(n_times, cached, out):
    """ROWS multiply-adds, again and again."""
    total, single, number = zeros(out, ROWS), zeros(out, 1), cached[0]
    for _ in range(n_times):
        total = multiply_add(splat(total, number), splat(single, number), total)
    store(out, 0, 0, sum_of_rows(total))


@compiled
def from_cache(n_times, cached, out):
    """The same, with one operand of each in the cache."""
    total, single, number, lanes, k = zeros(out, ROWS), zeros(out, 1), cached[0], lanes_of(out), 0
    for _ in range(n_times):
        total = multiply_add(load(total, cached, k, lanes), splat(single, number), total)
        k = k + ROWS * lanes if k + 2 * ROWS * lanes <= cached.size else 0
    store(out, 0, 0, sum_of_rows(total))


@compiled
def repeat(n_times, address, arguments):
    """Call a native function again and again."""
    for _ in range(n_times):
        compiling.call(address, arguments)


@cache
def rate_of(kernel: Callable[..., None], dtype: np.dtype, n_threads: int, seconds: float) -> float:
    """Multiply-adds per second of all threads together."""

    def prepare() -> Work:
        cached, out = ones(N_CACHED, dtype), ones(lanes_of_dtype(dtype), dtype)
        return lambda n_times: kernel(n_times, cached, out)

    return ROWS * n_threads / seconds_each(prepare, n_threads, seconds)


def ones(size: int, dtype: np.dtype) -> NDArray:
    """So many, from the beginning of a cache line on, as in a plan's memory."""
    array: NDArray = aligned_rows(1, size, dtype)[0]
    array[:] = 1
    return array


def seconds_each(prepare: Callable[[], Work], n_threads: int, seconds: float) -> float:
    """Seconds that some work takes while all threads do theirs: the slowest's, in the best of rounds of `seconds`."""
    works = [prepare() for _ in range(n_threads)]
    works[0](1)
    n_times = math.ceil(seconds / max(timed(works[0], 100) / 100, 1e-9))
    start = Barrier(n_threads)

    def one_round(work: Work) -> float:
        start.wait()
        return timed(work, n_times)

    with ThreadPoolExecutor(n_threads) as pool:
        return min(max(pool.map(one_round, works)) for _ in range(ROUNDS)) / n_times


def timed(work: Work, n_times: int) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work(n_times)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Tile:
    """Some packed samples (B, D), by which a layer of `n_panels` is to be multiplied."""

    packed: PackedRows
    n_features: int
    n_panels: int
    dtype: np.dtype

    @property
    def kernels(self) -> sparse.SparseKernels:
        """Those for its dtypes."""
        return sparse.sparse_kernels(self.packed.values.dtype, self.packed.columns.dtype)

    @property
    def n_rows(self) -> int:
        """B."""
        return len(self.packed.row_starts) - 1

    def numbers(self, n_rows: int) -> NDArray:
        """Something to multiply by: so many rows of the panels, and a row for biases."""
        return ones(self.n_panels * (n_rows + 1) * lanes_of_dtype(self.dtype), self.dtype)

    def forward(self) -> Work:
        """The product."""
        z, order, flat = self.numbers(self.n_rows), read_only((), np.int64), self.numbers(self.n_features)
        bias = self.n_panels * self.n_features * lanes_of_dtype(self.dtype)
        rows = *self.by_rows(order), self.n_features, read_only(flat, self.dtype), 0, bias, 1.0, self.n_panels
        return native_work(self.kernels.product, (*rows, z, 0, True))

    def backward(self) -> Work:
        """The gradient of the weight, from sorted samples."""
        starts, values, rows = self.sorted()
        d_z, gradient = read_only(self.numbers(self.n_rows), self.dtype), self.numbers(self.n_features)
        columns = read_only(values, np.uint8), read_only(rows, np.uint8), read_only(starts, np.int64), self.n_features
        arguments = *columns, d_z, 0, self.n_rows, self.n_panels, gradient, 0, False
        return native_work(self.kernels.product_backward, arguments)

    def sort(self) -> Work:
        """Sorting them by columns, as they come."""
        order = read_only(np.random.default_rng(0).permutation(self.n_rows), np.int64)
        return native_work(self.kernels.sort_by_columns, (*self.by_rows(order), *self.room()))

    def sorted(self) -> tuple[NDArray, NDArray, NDArray]:
        """Where columns start, values and rows."""
        found = self.room()
        native_work(self.kernels.sort_by_columns, (*self.by_rows(read_only((), np.int64)), *found))(1)
        return found

    def by_rows(self, order: NDArray[np.int64]) -> tuple[Any, ...]:
        """What kernels are told of them."""
        values, columns, starts, _ = self.packed
        raw = (read_only(each.view(np.uint8), np.uint8) for each in (values, columns))
        return *raw, read_only(starts, np.int64), order, 0, self.n_rows

    def room(self) -> tuple[NDArray, NDArray, NDArray]:
        """For what is sorted."""
        size = len(self.packed.values) + TERMS * self.n_features
        values = np.zeros(size * self.packed.values.itemsize, np.uint8)
        return np.zeros(self.n_features + 1, np.int64), values, np.zeros(size, np.uint8)


def native_work(function: compiling.NativeFunction, arguments: tuple[Any, ...]) -> Work:
    """Calls of a native function."""
    (address,) = load_code([function.machine_code(*arguments)])
    return lambda n_times: repeat(n_times, address, arguments)


def find_limit(loaded: LoadedWorkload, n_threads: int, seconds: float) -> Limit:
    """Measure a workload's steps, and what limits them, in rounds of so many seconds."""
    times = time_steps(loaded, n_threads)
    dtype, cost = loaded.spec.network.numpy_dtype, count_step(loaded.spec, loaded.dataset)
    x, batch = loaded.dataset.x, loaded.spec.batch_size
    packed = pack_rows(x[: min(batch or MOST_PACKED_ROWS, MOST_PACKED_ROWS)], dtype)
    flops = cost.flops_of_nonzeros if packed else cost.flops
    multiply_adds = flops / 2 / lanes_of_dtype(dtype)
    from_registers, with_loads = (rate_of(kernel, dtype, n_threads, seconds) for kernel in (in_registers, from_cache))
    products = sorting = None
    if packed:
        all_panels = -(-loaded.spec.network.layer_sizes[1] // lanes_of_dtype(dtype))
        n_panels = min(PANELS_OF_ITEM, all_panels)
        tile = Tile(packed, x.shape[1], n_panels, dtype)
        # By rows of a step, each of which one thread has.
        n_tiles = (batch or len(x)) / tile.n_rows / n_threads
        both = sum(seconds_each(work, n_threads, seconds) for work in (tile.forward, tile.backward))
        products = n_tiles * all_panels / n_panels * both
        sorting = n_tiles * seconds_each(tile.sort, n_threads, seconds) if batch else None
    return Limit(
        loaded.workload.name,
        multiply_adds,
        statistics.median(times),
        min(times),
        multiply_adds / from_registers,
        multiply_adds / with_loads if packed else None,
        products,
        sorting,
    )


def time_steps(loaded: LoadedWorkload, n_threads: int) -> list[float]:
    """Seconds per step of each round."""
    with closing(BackendTrial(loaded, create_backend(BACKEND, "cpu", n_threads), n_threads)) as trial:
        (times,) = time_alternately([trial], ROUNDS, warms_up=True)
    return [seconds / loaded.n_steps for seconds in times]


def as_markdown(date: str, machine: dict[str, Any], limits: list[Limit]) -> str:
    header = ["", "multiply-adds", "step", "best", "registers", "cache", "kernels", "sorting", "reached"]
    lines = [
        f"# What limits a step, {date}",
        "",
        f"{machine['processor']}, {machine['n_cpus']} CPUs used, {machine['system']}, Python {machine['python']}.",
        "",
        INTRODUCTION,
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
    ]
    for each in limits:
        times = (each.step, each.best_step, each.registers, each.cache, each.kernels, each.sorting)
        cells = [each.workload, f"{each.multiply_adds:,.0f}", *map(milliseconds, times)]
        lines.append(f"| {' | '.join(cells)} | {each.registers / each.best_step:.0%} |")
    return "\n".join(lines) + "\n"


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g}"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of samples and time.")
def main(out: Path, scale: float) -> None:
    """Measure, and write figures."""
    seconds = scale * SECONDS_PER_ROUND
    limits = [find_limit(load_workload(name, scale=scale), n_usable_cpus(), seconds) for name in WORKLOADS]
    date, machine = datetime.now(UTC).date().isoformat(), describe_machine()
    written = {"date": date, "machine": machine, "limits": [asdict(limit) for limit in limits]}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"limits-{date}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    (out / f"limits-{date}.md").write_text(as_markdown(date, machine, limits), encoding="utf-8")
    click.echo(f"{out / f'limits-{date}'}.json and .md")


if __name__ == "__main__":
    main()
