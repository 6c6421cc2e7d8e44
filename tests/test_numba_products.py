"""Products of panels held in registers, against NumPy in float64."""

# Legend: w numbers of a vector, R rows, K terms of a sum, P panels.

from __future__ import annotations

import os
import subprocess
import sys
from itertools import cycle, product
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
from native_calls import run as call_native

from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.kernels import products
from fastnet.backends.numba_backend.kernels.products import ADD_NOTHING, ADD_NUMBERS, ADD_VECTORS, Left, Panels
from fastnet.backends.numba_backend.layout import TERMS, lanes_of_dtype
from fastnet.testing import assert_close

DTYPES = ["float32", "float64"]

# What memory holds that no product may read, or write to.
UNTOUCHED = np.nan


def run(native, dtype, **arguments):
    """Call a native function with arguments by name; what it reads from is handed over as plans do, read-only."""
    values = [
        read_only(value, dtype) if isinstance(value, np.ndarray) and name != "out" else value
        for name, value in arguments.items()
    ]
    call_native(native, *values)


class Memory:
    """A flat array that holds matrices, with room between them that must not be touched."""

    def __init__(self, dtype, seed=0):
        self.dtype = np.dtype(dtype)
        self.lanes = lanes_of_dtype(self.dtype)
        self.random = np.random.default_rng(seed)
        self.parts, self.size = [], 5

    def place(self, places, values=None):
        """Put numbers at `places`, counted from the end of what there is; returns where they start, and in float64."""
        if values is None:
            values = self.random.normal(size=places.shape).astype(self.dtype)
        start = self.size
        self.parts.append((start + places, values))
        self.size = start + int(places.max(initial=0)) + 1 + 3
        return start, values.astype(np.float64)

    def flat(self):
        flat = np.full(self.size, UNTOUCHED, self.dtype)
        for places, values in self.parts:
            flat[places] = values
        return flat


def strided(*strides_and_sizes):
    """Places (size, ...) of a matrix, or of one of more dimensions, for pairs of a stride and a size."""
    axes = [stride * np.arange(size) for stride, size in strides_and_sizes]
    return sum(np.ix_(*axes), start=np.zeros([len(axis) for axis in axes], np.int64))


def place_left(memory, n_rows, n_terms, form):
    """A left factor in one of the orders that matrices have in a plan: `Left`, and its numbers (R, K)."""
    lanes = memory.lanes
    if form == "rows":
        start, values = memory.place(strided((n_terms + 2, n_rows), (1, n_terms)))
        return Left(start, n_terms + 2, 1, n_terms, 0, 1), values
    if form == "columns":
        start, values = memory.place(strided((1, n_rows), (n_rows + 3, n_terms)))
        return Left(start, 1, n_rows + 3, n_terms, 0, 1), values
    n_outer, stride = -(-n_terms // lanes), (n_rows + 1) * lanes
    start, values = memory.place(strided((lanes, n_rows), (stride, n_outer), (1, lanes)))
    return Left(start, lanes, 1, lanes, stride, n_outer), values.reshape(n_rows, -1)


def place_panels(memory, n_rows, n_panels, values=None):
    """Panels with room between them: `Panels`, and the numbers (P, R, w)."""
    lanes = memory.lanes
    stride = n_rows * lanes + 7
    start, values = memory.place(strided((stride, n_panels), (lanes, n_rows), (1, lanes)), values)
    return Panels(start, lanes, stride), values


def place_added(memory, mode, n_rows, n_panels):
    """What is added: `Panels`, and its numbers as (P, R, w)."""
    shape = (n_panels, n_rows, memory.lanes)
    if mode == ADD_VECTORS:  # a vector for all rows of a panel, as biases are
        start, values = memory.place(strided((memory.lanes, n_panels), (1, memory.lanes)))
        return Panels(start, 0, memory.lanes), np.broadcast_to(values[:, None, :], shape)
    if mode == ADD_NUMBERS:
        start, values = memory.place(strided((2, n_rows)))
        return Panels(start, 2, 0), np.broadcast_to(values[None, :, None], shape)
    return Panels(0, 0, 0), np.zeros(shape)


def assert_multiplies(dtype, n_rows, n_terms, n_panels, form, mode):
    memory, written = Memory(dtype), Memory(dtype)
    left, a = place_left(memory, n_rows, n_terms, form)
    right, b = place_panels(memory, a.shape[1], n_panels)
    added, c = place_added(memory, mode, n_rows, n_panels)
    result, _ = place_panels(written, n_rows, n_panels)
    flat, out = memory.flat(), written.flat()
    scale, factor = (np.nan, 1.0) if mode == ADD_NOTHING else (0.25, 0.25)  # which is not read
    run(
        products.multiply, dtype, a=flat, left=left, b=flat, right=right, out=out, result=result,
        n_rows=n_rows, n_panels=n_panels, scale=scale, c=flat, added=added, mode=mode,
    )  # fmt: skip
    expected = factor * np.einsum("rk,pkw->prw", a, b) + c
    places = written.parts[0][0]
    assert_close(out[places], expected, dtype=dtype, longest_reduction=n_terms, name=f"{n_rows} x {n_panels} panels")
    out[places] = UNTOUCHED
    assert np.isnan(out).all()


def assert_products_of_all_shapes(dtype):
    """Every remainder of the rows and of the panels that blocks leave, with every kind of factor and of addition."""
    others = cycle(product((1, 2, 5, 16, 33), ("rows", "columns", "panels"), (ADD_NOTHING, ADD_VECTORS, ADD_NUMBERS)))
    wide = product((1, 3, 6, 21), (15, 16, 17, 21, 33))
    for n_rows, n_panels in [*product(range(1, 41), range(1, 10)), *wide]:
        for _ in range(2):
            n_terms, form, mode = next(others)
            assert_multiplies(dtype, n_rows, n_terms, n_panels, form, mode)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_all_shapes(dtype):
    assert_products_of_all_shapes(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_rows", [1, 4, 7, 16, 21])
def test_a_product_is_added_to_what_is_there(n_rows, dtype):
    """As gradients are from the second tile on: the sum is read and written in the same place."""
    memory, written = Memory(dtype), Memory(dtype, seed=1)
    left, a = place_left(memory, n_rows, 9, "columns")
    right, b = place_panels(memory, 9, 5)
    result, before = place_panels(written, n_rows, 5)
    flat, out = memory.flat(), written.flat()
    run(
        products.multiply, dtype, a=flat, left=left, b=flat, right=right, out=out, result=result,
        n_rows=n_rows, n_panels=5, scale=1.0, c=out, added=result, mode=ADD_VECTORS,
    )  # fmt: skip
    expected = before + np.einsum("rk,pkw->prw", a, b)
    assert_close(out[written.parts[0][0]], expected, dtype=dtype, longest_reduction=10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_rows", "n_panels", "n_outputs"), [(1, 1, 1), (5, 3, 2), (16, 1, 7), (37, 2, 10), (40, 9, 3)]
)
def test_dot_with_panels(n_rows, n_panels, n_outputs, dtype):
    """Rows that only fill up a vector may hold anything, and spoil no other."""
    memory = Memory(dtype)
    size = -(-n_rows // memory.lanes) * memory.lanes
    panels, h = place_panels(memory, n_rows, n_panels)
    memory.size += size * memory.lanes
    weight_start, weight = memory.place(np.arange(n_panels * n_outputs * memory.lanes))
    bias_start, bias = memory.place(np.arange(n_outputs))
    out = np.full(3 + n_outputs * size + 2, UNTOUCHED, dtype)
    flat = memory.flat()
    run(
        products.dot_with_panels, dtype, h=flat, panels=panels, n_panels=n_panels, weight=flat,
        weight_start=weight_start, bias_start=bias_start, n_outputs=n_outputs, out=out, out_start=3, size=size,
    )  # fmt: skip
    expected = np.einsum("prw,pow->or", h, weight.reshape(n_panels, n_outputs, -1)) + bias[:, None]
    actual = out[3:-2].reshape(n_outputs, size)[:, :n_rows]
    assert_close(actual, expected, dtype=dtype, longest_reduction=n_panels * memory.lanes)
    assert np.isnan(out[[0, 1, 2, -2, -1]]).all()


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_a", "n_b", "n_blocks"), [(1, 1, 1), (3, 2, 5), (7, 16, 3)])
def test_dots_of_rows(n_a, n_b, n_blocks, dtype, adds):
    memory = Memory(dtype)
    size = n_blocks * TERMS * memory.lanes
    a_start, a = memory.place(strided((size, n_a), (1, size)))
    b_start, b = memory.place(strided((size, n_b), (1, size)))
    out = np.r_[UNTOUCHED, np.ones(n_a * n_b), UNTOUCHED].astype(dtype)
    flat = memory.flat()
    run(
        products.dots_of_rows, dtype, a=flat, a_start=a_start, n_a=n_a, b=flat, b_start=b_start, n_b=n_b,
        size=size, lanes=memory.lanes, out=out, out_start=1, adds=adds,
    )  # fmt: skip
    assert_close(out[1:-1].reshape(n_a, n_b), a @ b.T + adds, dtype=dtype, longest_reduction=size)
    assert np.isnan(out[[0, -1]]).all()


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_vectors", range(1, 10))
def test_row_sums(n_vectors, dtype, adds):
    memory = Memory(dtype)
    size = n_vectors * memory.lanes
    start, a = memory.place(strided((size, 5), (1, size)))
    out = np.r_[UNTOUCHED, np.ones(5), UNTOUCHED].astype(dtype)
    run(
        products.row_sums, dtype, a=memory.flat(), a_start=start, n_rows=5, size=size, lanes=memory.lanes,
        out=out, out_start=1, adds=adds,
    )  # fmt: skip
    assert_close(out[1:-1], a.sum(axis=1) + adds, dtype=dtype, longest_reduction=size)
    assert np.isnan(out[[0, -1]]).all()


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_rows", [1, 3, 4, 6, 64, 67])
def test_panel_sums(n_rows, dtype, adds):
    memory = Memory(dtype)
    panels, a = place_panels(memory, n_rows, 3)
    out = np.r_[UNTOUCHED, np.ones(3 * memory.lanes), UNTOUCHED].astype(dtype)
    run(
        products.panel_sums, dtype, a=memory.flat(), panels=panels, n_rows=n_rows, n_panels=3,
        out=out, out_start=1, adds=adds,
    )  # fmt: skip
    assert_close(out[1:-1], a.sum(axis=1).ravel() + adds, dtype=dtype, longest_reduction=n_rows + 1)
    assert np.isnan(out[[0, -1]]).all()


AVX2_SCRIPT = """
import test_numba_products as tests
from fastnet.backends.numba_backend.kernels import blocks
assert blocks.ROWS == 4
tests.assert_products_of_all_shapes("float32")
print("right")
"""


def test_products_with_the_registers_of_avx2():
    """Blocks have other sizes there; a processor with AVX-512 can do what one with AVX2 can."""
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get("avx2") and features.get("fma")):
        pytest.skip("this processor has no AVX2")
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", AVX2_SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.stdout.strip() == "right", result.stderr
