"""Device arrays and the functions of CuPy's namespace, computed by NumPy."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from emulated_cupy.machine import MACHINE

_COPIED_AT_ONCE = 1 << 16  # bytes of the host's memory, page-locked or not, for which CUDA has room by itself
_NEVER_ON_A_DEVICE = 0x7F  # the byte that fresh memory is filled with: huge floats, indices out of bounds


class ndarray:  # noqa: N801  CuPy's name
    """An array in the memory of a device. What CuPy computes for is computed, what it refuses raises."""

    __array_ufunc__ = None

    def __init__(self, values: np.ndarray, *, fresh: bool = True) -> None:
        if fresh:
            MACHINE.allocate(values)
        self.values = values
        self.device_index = MACHINE.current_device

    def __array__(self, *args: object, **options: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __iter__(self) -> None:
        raise TypeError("iterating over a device array copies one element at a time")

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    T = property(lambda self: ndarray(self.values.T, fresh=False))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def owner(self) -> np.ndarray:
        """What the memory belongs to, all of which CuPy would have allocated at once."""
        values = self.values
        while isinstance(values.base, np.ndarray):
            values = values.base
        return values

    @cached_property
    def address(self) -> int:
        return self.values.ctypes.data

    @cached_property
    def offset(self) -> int:
        """Bytes from the beginning of the memory."""
        return self.address - self.owner.ctypes.data

    @property
    def flags(self) -> np.flagsobj:
        return self.values.flags

    def get(self) -> np.ndarray:
        MACHINE.refuse_while_capturing("a copy to the host")
        values = unwrap(self)
        MACHINE.n_waits += 1
        MACHINE.transfers.append(("to host", self.nbytes))
        return np.array(values, order="C")

    def set(self, array: np.ndarray) -> None:
        MACHINE.refuse_while_capturing("a copy to the device")
        if not isinstance(array, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if array.dtype != self.dtype:
            raise TypeError(f"{array.dtype} array cannot be set to {self.dtype} array")
        if array.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {array.shape}")
        if not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        MACHINE.n_waits += array.nbytes > _COPIED_AT_ONCE
        MACHINE.transfers.append(("to device", array.nbytes))
        unwrap(self)[...] = array

    def fill(self, value: Any) -> None:
        self[...] = value

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    __index__ = item = tolist = __int__

    def __getitem__(self, key: Any) -> ndarray:
        if isinstance(key, np.ndarray | list):
            key = asarray(np.asarray(key))
        if isinstance(key, ndarray):
            assert key.dtype.kind == "i", "masks wait for the device"
            return compute(operator.getitem, self, key)
        key = key if isinstance(key, tuple) else (key,)
        return ndarray(unwrap(self)[(*key, ...)], fresh=False)  # a view also where a single element is left

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        MACHINE.refuse_while_capturing("an assignment")
        MACHINE.n_operations += 1
        unwrap(self)[key] = unwrap(value)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == dtype else compute(np.ndarray.astype, self, dtype)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(unwrap(self).reshape(*shape), fresh=False)

    def view(self, dtype: Any) -> ndarray:
        return ndarray(unwrap(self).view(dtype), fresh=False)

    def sum(self, axis: int | None = None, dtype: Any = None, out: ndarray | None = None, keepdims: bool = False):
        return compute(np.sum, self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def max(self, axis: int | None = None, keepdims: bool = False) -> ndarray:
        return compute(np.max, self, axis=axis, keepdims=keepdims)


def unwrap(value: Any) -> Any:
    """What NumPy computes with: arrays of the current device, and scalars."""
    if isinstance(value, ndarray):
        if value.device_index != MACHINE.current_device:
            raise ValueError(
                f"The device where the array resides ({value.device_index}) is different from the current device "
                f"({MACHINE.current_device})."
            )
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def compute(function: Callable[..., Any], *operands: Any, out: ndarray | None = None, **options: Any) -> ndarray:
    """The result of a NumPy function as a device array; a GPU does not warn."""
    MACHINE.refuse_while_capturing("arithmetic with arrays")
    MACHINE.n_operations += 1
    with np.errstate(all="ignore"):
        if out is None:
            return ndarray(np.asarray(function(*map(unwrap, operands), **options)))
        function(*map(unwrap, operands), out=unwrap(out), **options)
    return out


def _operator(function: Callable[..., Any]) -> Callable[..., ndarray]:
    return lambda self, other: compute(function, self, other)


def _reflected(function: Callable[..., Any]) -> Callable[..., ndarray]:
    return lambda self, other: compute(function, other, self)


def _in_place(function: Callable[..., Any]) -> Callable[..., ndarray]:
    return lambda self, other: compute(function, self, other, out=self)


for _name, _function in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide}.items():
    setattr(ndarray, f"__{_name}__", _operator(_function))
    setattr(ndarray, f"__r{_name}__", _reflected(_function))
    setattr(ndarray, f"__i{_name}__", _in_place(_function))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _operator(getattr(operator, _name)))
ndarray.__neg__ = lambda self: compute(operator.neg, self)


def matmul(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    """As cuBLAS: operands of one type, and an `out` that is C-contiguous."""
    if MACHINE.product_error is not None:
        raise MACHINE.product_error
    if MACHINE.capturing_stream is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    assert a.dtype == b.dtype
    assert out is None or (out.dtype == a.dtype and out.values.flags.c_contiguous)
    return compute(np.matmul, a, b, out=out)


ndarray.__matmul__ = matmul


def asarray(array: Any) -> ndarray:
    if isinstance(array, ndarray):
        return array
    MACHINE.refuse_while_capturing("a copy to the device")
    if MACHINE.has_unified_memory:
        return ndarray(np.asarray(array), fresh=False)
    values = np.array(array)
    MACHINE.transfers.append(("to device", values.nbytes))
    return ndarray(values)


def array(source: Any) -> ndarray:
    return compute(np.array, source) if isinstance(source, ndarray) else asarray(source)


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    values = np.empty(shape, dtype)
    values.reshape(-1).view(np.uint8).fill(_NEVER_ON_A_DEVICE)
    return ndarray(values)


def argsort(a: ndarray, axis: int = -1, kind: str | None = None) -> ndarray:
    assert kind in (None, "stable")
    return compute(np.argsort, a, axis=axis, kind="stable")


def searchsorted(a: ndarray, v: ndarray, side: str = "left") -> ndarray:
    return compute(np.searchsorted, a, v, side=side)


def where(condition: ndarray, x: Any, y: Any) -> ndarray:
    return compute(np.where, condition, x, y)


NAMESPACE: dict[str, Any] = {
    "ndarray": ndarray,
    **{
        dtype.__name__: dtype
        for dtype in (np.float16, np.float32, np.float64, np.uint8, np.uint16, np.uint32, np.int32, np.int64)
    },
    "asarray": asarray,
    "array": array,
    "asnumpy": lambda a: a.get(),
    "empty": empty,
    "empty_like": lambda a: empty(a.shape, a.dtype),
    "zeros": lambda shape, dtype=np.float64: compute(np.zeros, shape, dtype),
    "zeros_like": lambda a: compute(np.zeros_like, a),
    "arange": lambda *bounds, dtype=None: compute(np.arange, *bounds, dtype=dtype),
    "argsort": argsort,
    "searchsorted": searchsorted,
    "matmul": matmul,
    "where": where,
    "exp": lambda a: compute(np.exp, a),
    "abs": lambda a: compute(np.abs, a),
}
