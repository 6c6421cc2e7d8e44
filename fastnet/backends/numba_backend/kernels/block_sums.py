"""What is computed with blocks of SIMD registers: products, and sums along their rows and across them."""

# Legend: R rows of a block, w numbers of a vector.

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastnet.backends.numba_backend.kernels.blocks import (
    Block,
    as_block,
    intrinsic,
    pointer_to,
    rows_of,
    splat_number,
)
from fastnet.backends.numba_backend.layout import TERMS

__all__ = [
    "add",
    "combine",
    "lane_sums",
    "multiply_add",
    "number_of",
    "sum_of_rows",
    "sums_of_terms",
    "transpose",
]

_INT_32 = ir.IntType(32)


@intrinsic
def add(context, a, b):
    """``a + b``."""

    def generate(context, builder, signature, arguments):
        pairs = zip(*(rows_of(builder, a, argument) for argument in arguments), strict=True)
        return as_block(builder, a, [builder.fadd(x, y) for x, y in pairs])

    return a(a, a), generate


@intrinsic
def multiply_add(context, a, b, c):
    """``a * b + c``, rounded once; `b` may have one row for all rows of the others."""

    def generate(context, builder, signature, arguments):
        fused = _multiply_add(builder, a)
        factors, others, terms = (rows_of(builder, *pair) for pair in zip((a, b, c), arguments, strict=True))
        others *= a.rows // b.rows
        rows = zip(factors, others, terms, strict=True)
        return as_block(builder, a, [builder.call(fused, row) for row in rows])

    return a(a, b, c), generate


@intrinsic
def sum_of_rows(context, block):
    """A block of one row: the sum of all rows, added in pairs."""
    single = Block(block.dtype, 1)

    def generate(context, builder, signature, arguments):
        return as_block(builder, single, _in_pairs(builder, rows_of(builder, block, arguments[0]), single.rows))

    return single(block), generate


@intrinsic
def sums_of_terms(context, block, terms):
    """A block with one row for each `terms.rows` rows: their sum, added in pairs."""
    sums = Block(block.dtype, block.rows // terms.rows)

    def generate(context, builder, signature, arguments):
        return as_block(builder, sums, _in_pairs(builder, rows_of(builder, block, arguments[0]), sums.rows))

    return sums(block, terms), generate


@intrinsic
def lane_sums(context, block):
    """A block of one row, whose number r is the sum of row r; the number of rows is a power of two up to w."""
    single = Block(block.dtype, 1)

    def generate(context, builder, signature, arguments):
        rows, n_partial = rows_of(builder, block, arguments[0]), block.lanes
        # Every round halves what is left to add of each row, and the number of vectors as long as there are several: a
        # vector then holds the partial sums of two neighbours, one after the other.
        while n_partial > 1:
            pairs = zip(rows[::2], rows[1::2], strict=True) if len(rows) > 1 else [(rows[0], rows[0])]
            rows = [_pair_sums(builder, block, x, y) for x, y in pairs]
            n_partial //= 2
        return as_block(builder, single, rows)

    return single(block), generate


@intrinsic
def transpose(context, square):
    """The square with rows and columns exchanged."""

    def generate(context, builder, signature, arguments):
        rows, half = rows_of(builder, square, arguments[0]), square.rows // 2
        orders = [
            [i // 2 + square.lanes * (i % 2) + first for i in range(square.lanes)] for first in (0, square.lanes // 2)
        ]
        # Each round interleaves every row with the one half the square further on; after as many as a number of a row
        # takes bits, each has come to its place.
        for _ in range(half.bit_length()):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [_shuffle(builder, square, x, y, order) for x, y in pairs for order in orders]
        return as_block(builder, square, rows)

    return square(square), generate


@intrinsic
def combine(context, block, array, start):
    """A block of one row: the sum of the rows, row r times ``array[start + r]``."""
    single = Block(block.dtype, 1)

    def generate(context, builder, signature, arguments):
        _, values, index = arguments
        fused = _multiply_add(builder, block)
        totals = [ir.Constant(block.vector, None)] * TERMS
        for r, row in enumerate(rows_of(builder, block, arguments[0])):
            place = builder.add(index, index.type(r))
            factor = splat_number(builder, block, builder.load(pointer_to(context, builder, array, values, place)))
            totals[r % TERMS] = builder.call(fused, (row, factor, totals[r % TERMS]))
        return as_block(builder, single, _in_pairs(builder, totals, 1))

    return single(block, array, types.intp), generate


@intrinsic
def number_of(context, single, r):
    """Number r of a block of one row."""

    def generate(context, builder, signature, arguments):
        (vector,) = rows_of(builder, single, arguments[0])
        return builder.extract_element(vector, arguments[1])

    return single.dtype(single, types.intp), generate


def _multiply_add(builder, block):
    """LLVM's function for the vectors of a block."""
    name, kind = f"llvm.fma.v{block.lanes}f{block.dtype.bitwidth}", ir.FunctionType(block.vector, [block.vector] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, name)


def _in_pairs(builder, vectors, n_sums):
    """Neighbours are added up until there are `n_sums` of them."""
    while len(vectors) > n_sums:
        vectors = [builder.fadd(x, y) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors


def _pair_sums(builder, block, x, y):
    """The sums of neighbours in x, and then those in y."""
    even, odd = (_shuffle(builder, block, x, y, range(first, 2 * block.lanes, 2)) for first in (0, 1))
    return builder.fadd(even, odd)


def _shuffle(builder, block, x, y, order):
    """The numbers of x, and then those of y, at the places of `order`."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_INT_32, block.lanes), [_INT_32(i) for i in order]))
