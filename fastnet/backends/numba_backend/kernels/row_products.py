"""Products of matrices whose rows lie one after the other, with samples along them."""

# Legend: R rows, K terms of a sum, w numbers of a vector, S samples of a tile, filled up to a multiple of ``TERMS * w``
# unless a function takes fewer.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import NamedTuple

from fastnet.backends.numba_backend.kernels.block_sums import add, lane_sums, multiply_add, number_of, sum_of_rows
from fastnet.backends.numba_backend.kernels.blocks import ROWS, lanes_of, load, splat, spread, store, zeros
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, block_kernel, kernel
from fastnet.backends.numba_backend.layout import TERMS

__all__ = ["Factors", "Rows", "combine_rows", "dot", "dots_of_rows", "row_sums"]


class Factors(NamedTuple):
    """Where factors lie in their array: number ``(r, k)`` of (R, `n_terms`) at ``start + r * row_stride + k * stride``.

    The bias of row r is at ``bias + r``.
    """

    start: int
    row_stride: int
    stride: int
    n_terms: int
    bias: int


@block_kernel
def combine_row(total, flat, factors, row, source, source_at, size, scale, adds_bias, out, out_at):
    """As many vectors of a row as `total` has."""
    lanes = lanes_of(out)
    at = factors.start + row * factors.row_stride
    for _ in range(factors.n_terms):
        total = multiply_add(load(total, source, source_at, lanes), spread(zeros(out, 1), flat, at, 0), total)
        source_at += size
        at += factors.stride
    if adds_bias:
        bias = spread(total, flat, factors.bias + row, 0)
        total = multiply_add(total, splat(total, scale), bias)
    store(out, out_at, lanes, total)


@NativeFunction
def combine_rows(flat, factors, source, source_start, scale, adds_bias, out, out_start, n_rows, size):
    """``out = scale * (factors @ source) + bias``: source is (K, S) and out (`n_rows`, S).

    Unless it `adds_bias`, `scale` is not read either, and ``out = factors @ source``.
    """
    scale, lanes = out.dtype.type(scale), lanes_of(out)
    for row in range(n_rows):
        s, out_at = 0, out_start + row * size
        while s + ROWS * lanes <= size:
            source_at, at = source_start + s, out_at + s
            combine_row(zeros(out, ROWS), flat, factors, row, source, source_at, size, scale, adds_bias, out, at)
            s += ROWS * lanes
        while s < size:
            source_at, at = source_start + s, out_at + s
            combine_row(zeros(out, TERMS), flat, factors, row, source, source_at, size, scale, adds_bias, out, at)
            s += TERMS * lanes


class Rows(NamedTuple):
    """Where (`n_rows`, S) lies in its array, and how far apart the results of two of its rows are."""

    start: int
    n_rows: int
    out_stride: int


@kernel
def dot(a, b, size):
    """The dot product of the first `size` numbers of two arrays, a multiple of w.

    Sums of some hundred terms or less are of their dtype.
    """
    lanes, several, single, k = lanes_of(a), zeros(a, TERMS), zeros(a, 1), 0
    while k + TERMS * lanes <= size:
        several = multiply_add(load(several, a, k, lanes), load(several, b, k, lanes), several)
        k += TERMS * lanes
    while k < size:
        single = multiply_add(load(single, a, k, 0), load(single, b, k, 0), single)
        k += lanes
    return number_of(lane_sums(add(sum_of_rows(several), single)), 0)


@block_kernel
def put_sums(total, n_rows, out, at, stride, adds):
    """The sums of the rows of a block, added to what is there if `adds`."""
    sums = lane_sums(total)
    for r in range(n_rows):
        place = at + r * stride
        out[place] = out[place] + number_of(sums, r) if adds else number_of(sums, r)


@NativeFunction
def dots_of_rows(many, rows, few, others, size, out, out_start, adds):
    """Dot products of all pairs of rows of two matrices, added to what is there if `adds`.

    It is faster if `rows` are more than `others`.
    """
    lanes, n_together = lanes_of(out), rows.n_rows - rows.n_rows % TERMS
    for j in range(others.n_rows):
        few_at, at = others.start + j * size, out_start + j * others.out_stride
        for i in range(0, n_together, TERMS):
            total, many_at = zeros(out, TERMS), rows.start + i * size
            for k in range(0, size, lanes):
                factors = load(zeros(out, 1), few, few_at + k, 0)
                total = multiply_add(load(total, many, many_at + k, size), factors, total)
            put_sums(total, TERMS, out, at + i * rows.out_stride, rows.out_stride, adds)
        for i in range(n_together, rows.n_rows):
            total, many_at = zeros(out, TERMS), rows.start + i * size
            for k in range(0, size, TERMS * lanes):
                factors = load(total, few, few_at + k, lanes)
                total = multiply_add(load(total, many, many_at + k, lanes), factors, total)
            put_sums(sum_of_rows(total), 1, out, at + i * rows.out_stride, 0, adds)


@NativeFunction
def row_sums(a, start, n_rows, size, out, out_start, adds):
    """The sum of each row of a (n_rows, size), added to what is there if `adds`; `size` is a multiple of w."""
    lanes, n_together = lanes_of(out), n_rows - n_rows % TERMS
    for i in range(0, n_together, TERMS):
        total, at = zeros(out, TERMS), start + i * size
        for k in range(0, size, lanes):
            total = add(total, load(total, a, at + k, size))
        put_sums(total, TERMS, out, out_start + i, 1, adds)
    for i in range(n_together, n_rows):
        several, single, k, end = zeros(out, TERMS), zeros(out, 1), start + i * size, start + (i + 1) * size
        while k + TERMS * lanes <= end:
            several = add(several, load(several, a, k, lanes))
            k += TERMS * lanes
        while k < end:
            single = add(single, load(single, a, k, 0))
            k += lanes
        put_sums(add(sum_of_rows(several), single), 1, out, out_start + i, 0, adds)
