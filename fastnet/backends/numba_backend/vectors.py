"""SIMD vectors for kernels: LLVM's vector types of any number of lanes, which LLVM splits into what the CPU has.

A loop whose vectors stay in registers is written down as such here, and not left to the compiler to find. Vectors are
made by :func:`zeros`; the other functions take one, `like`, to know the dtype and the number of lanes. An index counts
the numbers of an array from its first one on, and is not checked.
"""

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

__all__ = ["add", "index_at", "load", "multiply_add", "number_at", "splat", "store", "zeros"]

_LANE = ir.IntType(32)

intrinsic: Any = extending.intrinsic  # its annotations are those of what is decorated, and not of what is called


class Vector(types.Type):
    """The type of `lanes` numbers of `dtype` in registers."""

    def __init__(self, dtype, lanes):
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")

    @property
    def llvm(self):
        """LLVM's name for it."""
        number = ir.FloatType() if self.dtype == types.float32 else ir.DoubleType()
        return ir.VectorType(number, self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)


@intrinsic(prefer_literal=True)
def zeros(context, array, lanes):
    """A vector of zeros of the array's dtype; `lanes` is a number written in the source."""
    vector = Vector(array.dtype, lanes.literal_value)

    def generate(context, builder, signature, arguments):
        return ir.Constant(vector.llvm, None)

    return vector(array, lanes), generate


@intrinsic
def splat(context, like, number):
    """The same number in every lane."""

    def generate(context, builder, signature, arguments):
        undefined = ir.Constant(like.llvm, ir.Undefined)
        first = builder.insert_element(undefined, arguments[1], _LANE(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_LANE, like.lanes), None))

    return like(like, like.dtype), generate


@intrinsic
def load(context, like, array, index):
    """The numbers of an array from `index` on."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, arguments[1], arguments[2])
        vector = builder.load(builder.bitcast(pointer, like.llvm.as_pointer()))
        vector.align = array.dtype.bitwidth // 8
        return vector

    return like(like, array, types.intp), generate


@intrinsic
def store(context, array, index, vector):
    """Write a vector to an array, from `index` on."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, arguments[0], arguments[1])
        written = builder.store(arguments[2], builder.bitcast(pointer, vector.llvm.as_pointer()))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def add(context, a, b):
    """``a + b``."""

    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return a(a, a), generate


@intrinsic
def multiply_add(context, a, b, c):
    """``a * b + c``, rounded once."""

    def generate(context, builder, signature, arguments):
        name = f"llvm.fma.v{a.lanes}f{a.dtype.bitwidth}"
        kind = ir.FunctionType(a.llvm, [a.llvm] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    return a(a, a, a), generate


@intrinsic
def index_at(context, array, index):
    """A number of an array of indices, taken as unsigned; Numba would look for negative ones at every access."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, arguments[0], arguments[1])
        return builder.zext(builder.load(pointer), context.get_value_type(types.intp))

    return types.intp(array, types.intp), generate


@intrinsic
def number_at(context, like, array, index):
    """A number of an array of uint8, or of the vector's dtype, in the vector's dtype."""

    def generate(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, array, arguments[1], arguments[2]))
        if isinstance(array.dtype, types.Float):
            return value
        return builder.sitofp(builder.zext(value, ir.IntType(32)), like.llvm.element)

    return like.dtype(like, array, types.intp), generate


def _pointer(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
