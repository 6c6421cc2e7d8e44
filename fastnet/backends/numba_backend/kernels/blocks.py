"""SIMD registers for kernels: a `Block` is some rows of one vector each, which stays in registers through a loop.

A vector is 64 bytes, whatever the CPU: LLVM makes it one register of AVX-512, two of AVX2 or four of NEON. A loop whose
sums shall stay in registers is written down as such here, and not left to the compiler to find.

Blocks are made by :func:`zeros`, and say the number of their rows by their type. Arrays are of one dimension; an index
counts their numbers, and is not checked.
"""

# Legend: R rows of a block, w numbers of a vector.

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

from fastnet.backends.numba_backend.layout import TERMS, VECTOR_BYTES

__all__ = [
    "ROWS",
    "add",
    "combine",
    "gather",
    "intrinsic",
    "lane_sums",
    "lanes_of",
    "load",
    "multiply_add",
    "number_of",
    "prefetch",
    "splat",
    "spread",
    "spread_run",
    "square_of_zeros",
    "store",
    "sum_of_rows",
    "sums_of_terms",
    "transpose",
    "zeros",
]

_INT_32 = ir.IntType(32)

# Of LLVM's prefetch: what it is for, how near, and from which kind of cache.
_TO_READ, _INTO_ALL_CACHES, _DATA = 0, 3, 1

intrinsic: Any = extending.intrinsic  # its annotations are those of what is decorated, and not of what is called


def _has_avx512() -> bool:
    config: Any = numba.config
    if config.CPU_FEATURES is not None:
        return "+avx512f" in config.CPU_FEATURES
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))


# Rows of the blocks that products are made of: with AVX-512 they take half of 32 registers; with AVX2 half of 16, and
# with NEON half of 32, which are narrower.
ROWS = 16 if _has_avx512() else 4


class Block(types.Type):
    """The type of `rows` vectors of `dtype`."""

    def __init__(self, dtype, rows):
        self.dtype = dtype
        self.rows = rows
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        self.number = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.vector = ir.VectorType(self.number, self.lanes)
        self.llvm = ir.ArrayType(self.vector, rows)
        super().__init__(name=f"Block({dtype}, {rows})")


@register_model(Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager, block):
        super().__init__(manager, block, block.llvm)


@intrinsic(prefer_literal=True)
def zeros(context, array, rows):
    """`rows` vectors of zeros of the array's dtype; the number of rows is a constant."""
    block = Block(array.dtype, rows.literal_value)
    return block(array, rows), lambda *_: ir.Constant(block.llvm, None)


@intrinsic
def square_of_zeros(context, array):
    """As many vectors of zeros as a vector has numbers."""
    block = Block(array.dtype, VECTOR_BYTES * 8 // array.dtype.bitwidth)
    return block(array), lambda *_: ir.Constant(block.llvm, None)


@intrinsic
def lanes_of(context, array):
    """How many numbers of the array's dtype a vector has: a constant."""
    n_lanes = VECTOR_BYTES * 8 // array.dtype.bitwidth
    return types.intp(array), lambda context, *_: context.get_constant(types.intp, n_lanes)


@intrinsic
def load(context, like, array, start, stride):
    """A block as large as `like`, whose row r is ``array[start + r * stride:]``."""

    def generate(context, builder, signature, arguments):
        _, values, index, step = arguments
        rows = [
            _load(builder, like, _pointer(context, builder, array, values, at))
            for at in _indices(builder, index, step, like.rows)
        ]
        return _as_block(builder, like, rows)

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def store(context, array, start, stride, block):
    """Write row r of the block to ``array[start + r * stride:]``."""

    def generate(context, builder, signature, arguments):
        values, index, step, written = arguments
        for r, at in enumerate(_indices(builder, index, step, block.rows)):
            pointer = _pointer(context, builder, array, values, at)
            place = builder.bitcast(pointer, block.vector.as_pointer())
            builder.store(builder.extract_value(written, r), place, align=block.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, block), generate


@intrinsic
def add(context, a, b):
    """``a + b``."""

    def generate(context, builder, signature, arguments):
        pairs = zip(*(_rows(builder, a, argument) for argument in arguments), strict=True)
        return _as_block(builder, a, [builder.fadd(x, y) for x, y in pairs])

    return a(a, a), generate


@intrinsic
def splat(context, like, number):
    """A block as large as `like` with `number` everywhere."""

    def generate(context, builder, signature, arguments):
        return _as_block(builder, like, [_splat(builder, like, arguments[1])] * like.rows)

    return like(like, like.dtype), generate


@intrinsic
def spread(context, like, array, start, stride):
    """A block as large as `like`, whose row r is ``array[start + r * stride]`` everywhere."""

    def generate(context, builder, signature, arguments):
        _, values, index, step = arguments
        pointers = (_pointer(context, builder, array, values, at) for at in _indices(builder, index, step, like.rows))
        return _as_block(builder, like, [_splat(builder, like, builder.load(pointer)) for pointer in pointers])

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def spread_run(context, like, array, start):
    """A block as large as `like`, whose row r is ``array[start + r]`` everywhere; uint8 becomes the block's dtype."""

    def generate(context, builder, signature, arguments):
        _, values, index = arguments
        number = ir.IntType(8) if array.dtype == types.uint8 else like.number
        place = builder.bitcast(
            _pointer(context, builder, array, values, index), ir.VectorType(number, like.rows).as_pointer()
        )
        run = builder.load(place, align=array.dtype.bitwidth // 8)
        if array.dtype == types.uint8:
            whole = builder.zext(run, ir.VectorType(_INT_32, like.rows))
            run = builder.sitofp(whole, ir.VectorType(like.number, like.rows))
        numbers = (builder.extract_element(run, _INT_32(r)) for r in range(like.rows))
        return _as_block(builder, like, [_splat(builder, like, value) for value in numbers])

    return like(like, array, types.intp), generate


@intrinsic
def gather(context, like, array, start, panel_stride, indices, first, terms):
    """A block as large as `like`: for each panel p, as many rows ``array[start + p * panel_stride + index * w:]``.

    The index of each row is that of ``indices`` from `first` on, as many as `terms` has rows; they are unsigned.
    """

    def generate(context, builder, signature, arguments):
        _, values, offset, stride, index_array, index, _ = arguments
        whole = context.get_value_type(types.intp)
        begins = []
        for at in _indices(builder, index, whole(1), terms.rows):
            row = builder.zext(builder.load(_pointer(context, builder, indices, index_array, at)), whole)
            begins.append(builder.add(offset, builder.mul(row, whole(like.lanes))))
        rows = []
        for panel in range(like.rows // terms.rows):
            distance = builder.mul(stride, whole(panel))
            places = [builder.add(begin, distance) for begin in begins] if panel else begins
            rows += [_load(builder, like, _pointer(context, builder, array, values, place)) for place in places]
        return _as_block(builder, like, rows)

    return like(like, array, types.intp, types.intp, indices, types.intp, terms), generate


@intrinsic
def prefetch(context, array, index):
    """Have the cache line of ``array[index]`` fetched, as it will be read soon."""

    def generate(context, builder, signature, arguments):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT_32, _INT_32, _INT_32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(_pointer(context, builder, array, *arguments), byte)
        builder.call(function, [place, _INT_32(_TO_READ), _INT_32(_INTO_ALL_CACHES), _INT_32(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def multiply_add(context, a, b, c):
    """``a * b + c``, rounded once; `b` may have one row for all rows of the others."""

    def generate(context, builder, signature, arguments):
        fused = _multiply_add(builder, a)
        factors, others, terms = (_rows(builder, *pair) for pair in zip((a, b, c), arguments, strict=True))
        others *= a.rows // b.rows
        rows = zip(factors, others, terms, strict=True)
        return _as_block(builder, a, [builder.call(fused, row) for row in rows])

    return a(a, b, c), generate


@intrinsic
def sum_of_rows(context, block):
    """A block of one row: the sum of all rows, added in pairs."""
    single = Block(block.dtype, 1)

    def generate(context, builder, signature, arguments):
        return _as_block(builder, single, _in_pairs(builder, _rows(builder, block, arguments[0]), single.rows))

    return single(block), generate


@intrinsic
def sums_of_terms(context, block, terms):
    """A block with one row for each `terms.rows` rows: their sum, added in pairs."""
    sums = Block(block.dtype, block.rows // terms.rows)

    def generate(context, builder, signature, arguments):
        return _as_block(builder, sums, _in_pairs(builder, _rows(builder, block, arguments[0]), sums.rows))

    return sums(block, terms), generate


@intrinsic
def lane_sums(context, block):
    """A block of one row, whose number r is the sum of row r; the number of rows is a power of two up to w."""
    single = Block(block.dtype, 1)

    def generate(context, builder, signature, arguments):
        rows, n_partial = _rows(builder, block, arguments[0]), block.lanes
        # Every round halves what is left to add of each row, and the number of vectors as long as there are several: a
        # vector then holds the partial sums of two neighbours, one after the other.
        while n_partial > 1:
            pairs = zip(rows[::2], rows[1::2], strict=True) if len(rows) > 1 else [(rows[0], rows[0])]
            rows = [_pair_sums(builder, block, x, y) for x, y in pairs]
            n_partial //= 2
        return _as_block(builder, single, rows)

    return single(block), generate


@intrinsic
def transpose(context, square):
    """The square with rows and columns exchanged."""

    def generate(context, builder, signature, arguments):
        rows, half = _rows(builder, square, arguments[0]), square.rows // 2
        orders = [
            [i // 2 + square.lanes * (i % 2) + first for i in range(square.lanes)] for first in (0, square.lanes // 2)
        ]
        # Each round interleaves every row with the one half the square further on; after as many as a number of a row
        # takes bits, each has come to its place.
        for _ in range(half.bit_length()):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [_shuffle(builder, square, x, y, order) for x, y in pairs for order in orders]
        return _as_block(builder, square, rows)

    return square(square), generate


@intrinsic
def combine(context, block, array, start):
    """A block of one row: the sum of the rows, row r times ``array[start + r]``."""
    single = Block(block.dtype, 1)

    def generate(context, builder, signature, arguments):
        _, values, index = arguments
        fused = _multiply_add(builder, block)
        totals = [ir.Constant(block.vector, None)] * TERMS
        for r, row in enumerate(_rows(builder, block, arguments[0])):
            place = builder.add(index, index.type(r))
            factor = _splat(builder, block, builder.load(_pointer(context, builder, array, values, place)))
            totals[r % TERMS] = builder.call(fused, (row, factor, totals[r % TERMS]))
        return _as_block(builder, single, _in_pairs(builder, totals, 1))

    return single(block, array, types.intp), generate


@intrinsic
def number_of(context, single, r):
    """Number r of a block of one row."""

    def generate(context, builder, signature, arguments):
        (vector,) = _rows(builder, single, arguments[0])
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


def _indices(builder, start, stride, count):
    """``start + r * stride`` of all rows.

    Written with multiples of the stride, as the compiler made a slower loop of one sum after the other: 78 in place of
    108 GFLOP/s in one product on one machine. It still walks from row to row; why the loops differ is not known.
    """
    multiples = [builder.mul(stride, stride.type(i)) for i in range(4)]
    for r in range(count):
        fourth = start if r < 4 else builder.add(start, builder.mul(stride, stride.type(r - r % 4)))
        yield fourth if r % 4 == 0 else builder.add(fourth, multiples[r % 4])


def _pointer(context, builder, array_type, array, index):
    return builder.gep(context.data_model_manager[array_type].get(builder, array, "data"), [index])


def _load(builder, block, pointer):
    return builder.load(builder.bitcast(pointer, block.vector.as_pointer()), align=block.dtype.bitwidth // 8)


def _splat(builder, block, number):
    undefined = ir.Constant(block.vector, ir.Undefined)
    first = builder.insert_element(undefined, number, _INT_32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT_32, block.lanes), None))


def _rows(builder, block, value):
    return [builder.extract_value(value, r) for r in range(block.rows)]


def _as_block(builder, block, rows):
    value = ir.Constant(block.llvm, ir.Undefined)
    for r, row in enumerate(rows):
        value = builder.insert_value(value, row, r)
    return value
