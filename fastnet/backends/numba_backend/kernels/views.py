"""Arrays and records from the addresses that a record holds.

Named tuples of a dozen arrays would be handed from function to function number by number, seven for each array, which
takes longer than what a tiny network has to do, and seconds to compile; and Python would look at each of them on every
call. A record of addresses is handed on as one pointer.
"""

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.np.arrayobj import populate_array

from fastnet.backends.numba_backend.kernels.blocks import intrinsic
from fastnet.backends.numba_backend.records import (
    KERNELS_DTYPE,
    LAYER_DTYPE,
    CodedNetwork,
    CodedOptimizer,
    GroupSums,
    OptimizerState,
    Run,
    Samples,
    Scratch,
    Step,
    record_dtype,
)

__all__ = [
    "address_of",
    "bytes_at",
    "doubles_at",
    "kernels_at",
    "labels_at",
    "layers_at",
    "matrix_of",
    "network_at",
    "numbers_at",
    "optimizer_at",
    "own_bytes_at",
    "own_doubles_at",
    "own_labels_at",
    "own_numbers_at",
    "own_wholes_at",
    "part_of",
    "row_of",
    "run_at",
    "samples_at",
    "scratch_at",
    "state_at",
    "step_at",
    "sums_at",
    "wholes_at",
]


def _make_array(array_type, context, builder, address, shape):
    """A C-ordered array of one or two dimensions at an address, which may be a pointer."""
    array = context.make_array(array_type)(context, builder)
    item_size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    data = address if isinstance(address.type, ir.PointerType) else builder.inttoptr(address, array.data.type)
    strides = [item_size] if len(shape) == 1 else [builder.mul(shape[1], item_size), item_size]
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=item_size, meminfo=None)
    return array._getvalue()


def _array_reader(number_type: Any, *, readonly: bool = True) -> Any:
    """A function that makes an array of so many numbers at an address."""
    array_type = types.Array(number_type, 1, "C", readonly=readonly)

    @intrinsic
    def read(context, address, size):
        def generate(context, builder, signature, arguments):
            return _make_array(array_type, context, builder, arguments[0], arguments[1:])

        return array_type(address, size), generate

    return read


bytes_at = _array_reader(types.uint8)
wholes_at = _array_reader(types.int64)
labels_at = _array_reader(types.int32)
doubles_at = _array_reader(types.float64)
layers_at = _array_reader(numba.from_dtype(LAYER_DTYPE))

# Memory of the plan's own, which is written to:
own_bytes_at = _array_reader(types.uint8, readonly=False)
own_wholes_at = _array_reader(types.int64, readonly=False)
own_labels_at = _array_reader(types.int32, readonly=False)
own_doubles_at = _array_reader(types.float64, readonly=False)


def _like_reader(*, readonly: bool) -> Any:
    @intrinsic
    def read(context, like, address, size):
        number_type = like.dtype if isinstance(like, types.Array) else like
        array_type = types.Array(number_type, 1, "C", readonly=readonly)

        def generate(context, builder, signature, arguments):
            return _make_array(array_type, context, builder, arguments[1], arguments[2:])

        return array_type(like, address, size), generate

    return read


# The same, with numbers of the dtype of `like`, an array or a number:
numbers_at = _like_reader(readonly=True)
own_numbers_at = _like_reader(readonly=False)


def _view(array, start, *shape):
    """Of a flat array, what lies from a number on, in another shape. Nothing is checked, as a slice would do."""
    array_type = types.Array(array.dtype, len(shape), "C", readonly=not array.mutable)

    def generate(context, builder, signature, arguments):
        data = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        return _make_array(array_type, context, builder, data, arguments[2:])

    return array_type(array, start, *shape), generate


@intrinsic
def part_of(context, array, start, size):
    """Numbers [start, start + size) of a flat array."""
    return _view(array, start, size)


@intrinsic
def matrix_of(context, array, start, n_rows, n_columns):
    """(n_rows, n_columns) of a flat array from `start` on."""
    return _view(array, start, n_rows, n_columns)


@intrinsic
def row_of(context, array, n_rows, row):
    """A row of a flat array that is made up of so many."""
    signature, generate_part = _view(array, types.intp, types.intp)

    def generate(context, builder, _, arguments):
        given, n_rows, row = arguments
        size = builder.udiv(context.make_array(array)(context, builder, given).nitems, n_rows)
        return generate_part(context, builder, _, [given, builder.mul(row, size), size])

    return signature.return_type(array, types.intp, types.intp), generate


def _record_reader(dtype: Any) -> Any:
    """A function that takes what lies at an address as a record."""
    record_type = numba.from_dtype(dtype)

    @intrinsic
    def read(context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(record_type))

        return record_type(address), generate

    return read


kernels_at = _record_reader(KERNELS_DTYPE)
network_at = _record_reader(record_dtype(CodedNetwork))
optimizer_at = _record_reader(record_dtype(CodedOptimizer))
run_at = _record_reader(record_dtype(Run))
samples_at = _record_reader(record_dtype(Samples))
scratch_at = _record_reader(record_dtype(Scratch))
step_at = _record_reader(record_dtype(Step))
state_at = _record_reader(record_dtype(OptimizerState))
sums_at = _record_reader(record_dtype(GroupSums))


@intrinsic
def address_of(context, record):
    """Where a record lies."""
    return types.int64(record), lambda _, builder, __, arguments: builder.ptrtoint(arguments[0], ir.IntType(64))
