"""Matrix products of dense operands, made of blocks that stay in registers.

A matrix is cut into panels: as many of its columns as a vector has numbers, row after row; the last panel is filled up
with zeros. A row of a panel is one load. The left factor needs no such order, as its numbers are read one at a time.
"""

# Legend: w numbers of a vector, S samples of a tile in multiples of w, I fan-in, O fan-out.
# A panel holds the w numbers of row r at start + r * row_stride.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import NamedTuple

from fastnet.backends.numba_backend.kernels.block_sums import add, combine, multiply_add, sum_of_rows, transpose
from fastnet.backends.numba_backend.kernels.blocks import ROWS, load, splat, spread, square_of_zeros, store, zeros
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, block_kernel
from fastnet.backends.numba_backend.layout import TERMS

__all__ = [
    "Left",
    "Panels",
    "dot_with_panels",
    "multiply",
    "panel_sums",
]

# Rows of a block at the end of a matrix, or, for single rows, panels: a divisor of ROWS.
FEW_ROWS = 4


class Left(NamedTuple):
    """Where the left factor of a product lies in its array.

    Number ``(r, k)`` with ``k = i * n + j`` is at ``start + r * row_stride + i * outer_stride + j * stride``.
    """

    start: int
    row_stride: int
    stride: int
    n: int
    outer_stride: int
    n_outer: int


class Panels(NamedTuple):
    """Where the panels of a matrix lie in their array."""

    start: int
    row_stride: int
    panel_stride: int


@block_kernel
def multiply_rows(total, a, left, row, b, right, out, result, panel, scale, c, added, adds):
    """The product for as many rows of one panel as `total` has, from `row` on."""
    single = zeros(out, 1)
    b_at = right.start + panel * right.panel_stride
    for i in range(left.n_outer):
        at = left.start + row * left.row_stride + i * left.outer_stride
        for _ in range(left.n):
            total = multiply_add(spread(total, a, at, left.row_stride), load(single, b, b_at, 0), total)
            at += left.stride
            b_at += right.row_stride
    factor, c_at = splat(total, scale), added.start + row * added.row_stride + panel * added.panel_stride
    if adds:
        total = multiply_add(total, factor, load(total, c, c_at, added.row_stride))
    store(out, result.start + row * result.row_stride + panel * result.panel_stride, result.row_stride, total)


@block_kernel
def multiply_row(total, a, left, row, b, right, out, result, panel, scale, c, added, adds):
    """The product for one row of as many panels as `total` has rows, from `panel` on."""
    single = zeros(out, 1)
    b_at = right.start + panel * right.panel_stride
    for i in range(left.n_outer):
        at = left.start + row * left.row_stride + i * left.outer_stride
        for _ in range(left.n):
            total = multiply_add(load(total, b, b_at, right.panel_stride), spread(single, a, at, 0), total)
            at += left.stride
            b_at += right.row_stride
    factor, c_at = splat(total, scale), added.start + row * added.row_stride + panel * added.panel_stride
    if adds:
        total = multiply_add(total, factor, load(total, c, c_at, added.panel_stride))
    store(out, result.start + row * result.row_stride + panel * result.panel_stride, result.panel_stride, total)


@NativeFunction
def multiply(a, left, b, right, out, result, n_rows, n_panels, scale, c, added, adds):
    """``out = scale * (a @ b) + c``, for `n_rows` rows of `a`, and `n_panels` panels of `b` and of `out`.

    Of `c`, `added` says where its vectors lie: what is there already, say, or the biases of the panel's columns. Unless
    it `adds`, neither `c` nor `scale` is read, and ``out = a @ b``.
    """
    scale = out.dtype.type(scale)
    n_whole, n_wide = n_rows - n_rows % ROWS, n_panels - n_panels % ROWS
    for panel in range(n_panels):
        for row in range(0, n_whole, ROWS):
            multiply_rows(zeros(out, ROWS), a, left, row, b, right, out, result, panel, scale, c, added, adds)
    # The last rows do not fill a block: some go together with as many panels as do, the others in smaller blocks.
    for row in range(n_whole, n_rows):
        for panel in range(0, n_wide, ROWS):
            multiply_row(zeros(out, ROWS), a, left, row, b, right, out, result, panel, scale, c, added, adds)
    n_fours = n_rows - n_rows % FEW_ROWS
    for panel in range(n_wide, n_panels):
        for row in range(n_whole, n_fours, FEW_ROWS):
            multiply_rows(zeros(out, FEW_ROWS), a, left, row, b, right, out, result, panel, scale, c, added, adds)
    for row in range(n_fours, n_rows):
        panel = n_wide
        while panel + FEW_ROWS <= n_panels:
            multiply_row(zeros(out, FEW_ROWS), a, left, row, b, right, out, result, panel, scale, c, added, adds)
            panel += FEW_ROWS
        while panel < n_panels:
            multiply_row(zeros(out, 1), a, left, row, b, right, out, result, panel, scale, c, added, adds)
            panel += 1


@NativeFunction
def dot_with_panels(h, panels, n_panels, weight, weight_start, bias_start, n_outputs, out, out_start, size):
    """``out = weight @ h.T + bias``: h has `size` rows in panels, the weight `n_outputs`; out is (n_outputs, size)."""
    lanes = panels.row_stride
    for row in range(0, size, lanes):
        for panel in range(n_panels):
            at = panels.start + panel * panels.panel_stride + row * lanes
            columns = transpose(load(square_of_zeros(out), h, at, lanes))
            for j in range(n_outputs):
                place = out_start + j * size + row
                sums = combine(columns, weight, weight_start + (panel * n_outputs + j) * lanes)
                before = load(sums, out, place, 0) if panel else splat(sums, weight[bias_start + j])
                store(out, place, 0, add(sums, before))


@NativeFunction
def panel_sums(a, panels, n_rows, n_panels, out, out_start, adds):
    """The sum of the rows of each panel, added to what is there if `adds`."""
    lanes = panels.row_stride
    for panel in range(n_panels):
        at = panels.start + panel * panels.panel_stride
        several, row = zeros(out, TERMS), 0
        while row + TERMS <= n_rows:
            several = add(several, load(several, a, at + row * lanes, lanes))
            row += TERMS
        total = sum_of_rows(several)
        while row < n_rows:
            total = add(total, load(total, a, at + row * lanes, 0))
            row += 1
        place = out_start + panel * lanes
        store(out, place, 0, add(total, load(total, out, place, 0)) if adds else total)
