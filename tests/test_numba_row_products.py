"""Products of matrices whose rows lie one after the other, against NumPy in float64."""

# Legend: w numbers of a vector, S columns, a multiple of w, K terms of a sum.

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from native_calls import compiled
from placed_memory import UNTOUCHED, Memory, run, strided

from fastnet.backends.numba_backend.kernels import row_products
from fastnet.backends.numba_backend.kernels.row_products import Factors, Rows
from fastnet.backends.numba_backend.layout import TERMS
from fastnet.testing import assert_close

DTYPES = ["float32", "float64"]


def place_rows(memory, n_rows, size):
    return memory.place(strided((size, n_rows), (1, size)))


def assert_combines(dtype, n_rows, n_terms, n_vectors, *, transposed, adds_bias):
    memory = Memory(dtype)
    size = n_vectors * memory.lanes
    row_stride, stride = (1, n_rows + 2) if transposed else (n_terms + 2, 1)
    start, a = memory.place(strided((row_stride, n_rows), (stride, n_terms)))
    bias_start, bias = memory.place(np.arange(n_rows))
    source_start, source = place_rows(memory, n_terms, size)
    flat, out = memory.flat(), np.full(n_rows * size + 4, UNTOUCHED, dtype)
    scale, factor = (0.25, 0.25) if adds_bias else (np.nan, 1.0)  # which is not read
    run(
        row_products.combine_rows, dtype, flat=flat, factors=Factors(start, row_stride, stride, n_terms, bias_start),
        source=flat, source_start=source_start, scale=scale, adds_bias=adds_bias,
        out=out, out_start=2, n_rows=n_rows, size=size,
    )  # fmt: skip
    expected = factor * (a @ source) + bias[:, None] * adds_bias
    name = f"{n_rows} x {n_vectors} vectors"
    assert_close(out[2:-2].reshape(n_rows, size), expected, dtype=dtype, longest_reduction=n_terms, name=name)
    assert np.isnan(out[[0, 1, -2, -1]]).all()


def assert_combinations_of_all_shapes(dtype):
    """Rows shorter than a block, as long as several, and with a rest; every order of the factors."""
    shapes = product((1, 2, 7), (1, 2, 5, 16), (TERMS, 2 * TERMS, 5 * TERMS, 8 * TERMS))
    for (n_rows, n_terms, n_vectors), transposed, adds_bias in product(shapes, (False, True), (False, True)):
        assert_combines(dtype, n_rows, n_terms, n_vectors, transposed=transposed, adds_bias=adds_bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_combinations_of_all_shapes(dtype):
    assert_combinations_of_all_shapes(dtype)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_a", "n_b", "n_blocks"), [(1, 1, 1), (3, 2, 5), (4, 1, 2), (9, 16, 3)])
def test_dots_of_rows(n_a, n_b, n_blocks, dtype, adds):
    """Results go where they belong, whichever of the two is first, as gradients need both."""
    memory = Memory(dtype)
    size = n_blocks * TERMS * memory.lanes
    a_start, a = place_rows(memory, n_a, size)
    b_start, b = place_rows(memory, n_b, size)
    flat = memory.flat()
    rows, others = Rows(a_start, n_a, n_b), Rows(b_start, n_b, 1)
    for first, second in ((rows, others), (others, rows)):
        out = np.r_[UNTOUCHED, np.ones(n_a * n_b), UNTOUCHED].astype(dtype)
        run(
            row_products.dots_of_rows, dtype, many=flat, rows=first, few=flat, others=second,
            size=size, out=out, out_start=1, adds=adds,
        )  # fmt: skip
        assert_close(out[1:-1].reshape(n_a, n_b), a @ b.T + adds, dtype=dtype, longest_reduction=size)
        assert np.isnan(out[[0, -1]]).all()


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_rows", "n_vectors"), [*product((1, 5), range(1, 10)), (3, 6), (4, 5), (10, 7)])
def test_row_sums(n_rows, n_vectors, dtype, adds):
    memory = Memory(dtype)
    size = n_vectors * memory.lanes
    start, a = place_rows(memory, n_rows, size)
    out = np.r_[UNTOUCHED, np.ones(n_rows), UNTOUCHED].astype(dtype)
    run(
        row_products.row_sums, dtype, a=memory.flat(), start=start, n_rows=n_rows, size=size,
        out=out, out_start=1, adds=adds,
    )  # fmt: skip
    assert_close(out[1:-1], a.sum(axis=1) + adds, dtype=dtype, longest_reduction=size)
    assert np.isnan(out[[0, -1]]).all()


@compiled
def call_dot(a, b, size):
    return row_products.dot(a, b, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_vectors", range(10))
def test_dot(n_vectors, dtype):
    """Numbers beyond those asked for are not read."""
    memory = Memory(dtype)
    size = n_vectors * memory.lanes
    a, b = memory.random.normal(size=(2, size)).astype(dtype)
    padded = [np.r_[numbers, np.full(memory.lanes, UNTOUCHED, dtype)] for numbers in (a, b)]
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert_close(np.array(call_dot(*padded, size), dtype), np.array(expected), dtype=dtype, longest_reduction=size + 1)
