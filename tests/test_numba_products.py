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
from placed_memory import UNTOUCHED, Memory, place_panels, run, strided

from fastnet.backends.numba_backend.kernels import products
from fastnet.backends.numba_backend.kernels.products import Left, Panels
from fastnet.testing import assert_close

DTYPES = ["float32", "float64"]


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


def place_added(memory, adds, n_rows, n_panels):
    """What is added: `Panels`, and its numbers as (P, R, w)."""
    shape = (n_panels, n_rows, memory.lanes)
    if not adds:
        return Panels(0, 0, 0), np.zeros(shape)
    # A vector for all rows of a panel, as biases are:
    start, values = memory.place(strided((memory.lanes, n_panels), (1, memory.lanes)))
    return Panels(start, 0, memory.lanes), np.broadcast_to(values[:, None, :], shape)


def assert_multiplies(dtype, n_rows, n_terms, n_panels, form, adds):
    memory, written = Memory(dtype), Memory(dtype)
    left, a = place_left(memory, n_rows, n_terms, form)
    right, b = place_panels(memory, a.shape[1], n_panels)
    added, c = place_added(memory, adds, n_rows, n_panels)
    result, _ = place_panels(written, n_rows, n_panels)
    flat, out = memory.flat(), written.flat()
    scale, factor = (0.25, 0.25) if adds else (np.nan, 1.0)  # which is not read
    run(
        products.multiply, dtype, a=flat, left=left, b=flat, right=right, out=out, result=result,
        n_rows=n_rows, n_panels=n_panels, scale=scale, c=flat, added=added, adds=adds,
    )  # fmt: skip
    expected = factor * np.einsum("rk,pkw->prw", a, b) + c
    places = written.parts[0][0]
    assert_close(out[places], expected, dtype=dtype, longest_reduction=n_terms, name=f"{n_rows} x {n_panels} panels")
    out[places] = UNTOUCHED
    assert np.isnan(out).all()


def assert_products_of_all_shapes(dtype):
    """Every remainder of the rows and of the panels that blocks leave, with every kind of factor and of addition."""
    others = cycle(product(("rows", "columns", "panels"), (1, 2, 5, 16, 33), (False, True)))
    wide = product((1, 3, 6, 21), (15, 16, 17, 21, 33))
    for n_rows, n_panels in [*product(range(1, 41), range(1, 10)), *wide]:
        for _ in range(2):
            form, n_terms, adds = next(others)
            assert_multiplies(dtype, n_rows, n_terms, n_panels, form, adds)


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
        n_rows=n_rows, n_panels=5, scale=1.0, c=out, added=result, adds=True,
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
import test_numba_products
import test_numba_row_products
from fastnet.backends.numba_backend.kernels import blocks
assert blocks.ROWS == 4
test_numba_products.assert_products_of_all_shapes("float32")
test_numba_row_products.assert_combinations_of_all_shapes("float32")
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
