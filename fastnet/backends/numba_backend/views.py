"""Arrays from the addresses that a record holds.

Records of a dozen arrays would be handed from function to function number by number, seven for each array, which takes
longer than what a tiny network has to do, and seconds to compile. A record of addresses is handed on as one pointer.
"""

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from fastnet.backends.numba_backend.blocks import intrinsic
from fastnet.backends.numba_backend.records import LAYER_DTYPE

__all__ = ["as_record", "bytes_at", "labels_at", "layers_at", "numbers_at", "wholes_at"]


def as_record(values: NamedTuple) -> np.void:
    """A record of the numbers of a named tuple, and for each array of its address and ``NAME_size``.

    The arrays must be kept as long as the record is used.
    """
    fields: dict[str, int | float] = {}
    for name, value in values._asdict().items():
        fields[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
        if isinstance(value, np.ndarray):
            fields[f"{name}_size"] = value.size
    kinds = [(name, np.float64 if isinstance(value, float) else np.int64) for name, value in fields.items()]
    record: NDArray = np.zeros(1, kinds)
    record[0] = tuple(fields.values())
    scalar: np.void = record[0]
    return scalar


def _reader(number_type: Any) -> Any:
    """A function that makes a read-only array of so many numbers at an address."""
    array_type = types.Array(number_type, 1, "C", readonly=True)

    @intrinsic
    def read(context, address, size):
        return array_type(address, size), lambda *given: _make_array(array_type, *given)

    return read


bytes_at = _reader(types.uint8)
wholes_at = _reader(types.int64)
labels_at = _reader(types.int32)
layers_at = _reader(numba.from_dtype(LAYER_DTYPE))


@intrinsic
def numbers_at(context, like, address, size):
    """The same, with numbers of the dtype of the array `like`."""
    array_type = types.Array(like.dtype, 1, "C", readonly=True)

    def generate(context, builder, signature, arguments):
        return _make_array(array_type, context, builder, signature, arguments[1:])

    return array_type(like, address, size), generate


def _make_array(array_type, context, builder, signature, arguments):
    address, size = arguments
    array = context.make_array(array_type)(context, builder)
    item_size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data=data, shape=[size], strides=[item_size], itemsize=item_size, meminfo=None)
    return array._getvalue()
