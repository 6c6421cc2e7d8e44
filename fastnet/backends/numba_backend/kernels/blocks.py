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

from fastnet.backends.numba_backend.layout import VECTOR_BYTES

__all__ = [
    "ROWS",
    "Block",
    "as_block",
    "gather",
    "intrinsic",
    "lanes_of",
    "load",
    "pointer_to",
    "prefetch",
    "rows_of",
    "splat",
    "splat_number",
    "spread",
    "spread_run",
    "square_of_zeros",
    "store",
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
            _load(builder, like, pointer_to(context, builder, array, values, at))
            for at in _indices(builder, index, step, like.rows)
        ]
        return as_block(builder, like, rows)

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def store(context, array, start, stride, block):
    """Write row r of the block to ``array[start + r * stride:]``."""

    def generate(context, builder, signature, arguments):
        values, index, step, written = arguments
        for r, at in enumerate(_indices(builder, index, step, block.rows)):
            pointer = pointer_to(context, builder, array, values, at)
            place = builder.bitcast(pointer, block.vector.as_pointer())
            builder.store(builder.extract_value(written, r), place, align=block.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, block), generate


@intrinsic
def splat(context, like, number):
    """A block as large as `like` with `number` everywhere."""

    def generate(context, builder, signature, arguments):
        return as_block(builder, like, [splat_number(builder, like, arguments[1])] * like.rows)

    return like(like, like.dtype), generate


@intrinsic
def spread(context, like, array, start, stride):
    """A block as large as `like`, whose row r is ``array[start + r * stride]`` everywhere."""

    def generate(context, builder, signature, arguments):
        _, values, index, step = arguments
        pointers = (pointer_to(context, builder, array, values, at) for at in _indices(builder, index, step, like.rows))
        return as_block(builder, like, [splat_number(builder, like, builder.load(pointer)) for pointer in pointers])

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def spread_run(context, like, array, start):
    """A block as large as `like`, whose row r is ``array[start + r]`` everywhere; uint8 becomes the block's dtype."""

    def generate(context, builder, signature, arguments):
        _, values, index = arguments
        number = ir.IntType(8) if array.dtype == types.uint8 else like.number
        place = builder.bitcast(
            pointer_to(context, builder, array, values, index), ir.VectorType(number, like.rows).as_pointer()
        )
        run = builder.load(place, align=array.dtype.bitwidth // 8)
        if array.dtype == types.uint8:
            whole = builder.zext(run, ir.VectorType(_INT_32, like.rows))
            run = builder.sitofp(whole, ir.VectorType(like.number, like.rows))
        numbers = (builder.extract_element(run, _INT_32(r)) for r in range(like.rows))
        return as_block(builder, like, [splat_number(builder, like, value) for value in numbers])

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
            row = builder.zext(builder.load(pointer_to(context, builder, indices, index_array, at)), whole)
            begins.append(builder.add(offset, builder.mul(row, whole(like.lanes))))
        rows = []
        for panel in range(like.rows // terms.rows):
            distance = builder.mul(stride, whole(panel))
            places = [builder.add(begin, distance) for begin in begins] if panel else begins
            rows += [_load(builder, like, pointer_to(context, builder, array, values, place)) for place in places]
        return as_block(builder, like, rows)

    return like(like, array, types.intp, types.intp, indices, types.intp, terms), generate


@intrinsic
def prefetch(context, array, index):
    """Have the cache line of ``array[index]`` fetched, as it will be read soon."""

    def generate(context, builder, signature, arguments):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT_32, _INT_32, _INT_32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(pointer_to(context, builder, array, *arguments), byte)
        builder.call(function, [place, _INT_32(_TO_READ), _INT_32(_INTO_ALL_CACHES), _INT_32(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _indices(builder, start, stride, count):
    """``start + r * stride`` of all rows.

    Written with multiples of the stride, as the compiler made a slower loop of one sum after the other: 78 in place of
    108 GFLOP/s in one product on one machine. It still walks from row to row; why the loops differ is not known.
    """
    multiples = [builder.mul(stride, stride.type(i)) for i in range(4)]
    for r in range(count):
        fourth = start if r < 4 else builder.add(start, builder.mul(stride, stride.type(r - r % 4)))
        yield fourth if r % 4 == 0 else builder.add(fourth, multiples[r % 4])


def pointer_to(context, builder, array_type, array, index):
    """Where a number of an array lies."""
    return builder.gep(context.data_model_manager[array_type].get(builder, array, "data"), [index])


def _load(builder, block, pointer):
    return builder.load(builder.bitcast(pointer, block.vector.as_pointer()), align=block.dtype.bitwidth // 8)


def splat_number(builder, block, number):
    """A vector like those of the block, with `number` everywhere."""
    undefined = ir.Constant(block.vector, ir.Undefined)
    first = builder.insert_element(undefined, number, _INT_32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT_32, block.lanes), None))


def rows_of(builder, block, value):
    """The vectors of a value of type `block`."""
    return [builder.extract_value(value, r) for r in range(block.rows)]


def as_block(builder, block, rows):
    """A value of type `block` of these vectors."""
    value = ir.Constant(block.llvm, ir.Undefined)
    for r, row in enumerate(rows):
        value = builder.insert_value(value, row, r)
    return value
