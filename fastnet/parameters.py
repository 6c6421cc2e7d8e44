"""Weights and biases: one flat buffer, and views of it. The canonical layout that crosses the seam."""

# Legend: I fan-in, O fan-out of a layer, P number of parameters, M number of weights among them.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.errors import DataError
from fastnet.spec import NetworkSpec

__all__ = ["ParameterLayout", "Parameters"]


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Where each weight (I, O) and bias (O,) lies in the flat buffer: all weights in layer order, then all biases.

    Weights come first so that what concerns weights alone (the l2 penalty, weight decay) is one contiguous slice.
    """

    layer_sizes: tuple[int, ...]
    bias: bool

    @classmethod
    def of(cls, network: NetworkSpec) -> ParameterLayout:
        """Layout of a network's parameters."""
        return cls(network.layer_sizes, network.bias)

    @property
    def weight_shapes(self) -> tuple[tuple[int, int], ...]:
        """(I, O) of every layer."""
        return tuple(pairwise(self.layer_sizes))

    @property
    def bias_shapes(self) -> tuple[tuple[int], ...]:
        """(O,) of every layer; empty without biases."""
        return tuple((fan_out,) for fan_out in self.layer_sizes[1:]) if self.bias else ()

    @property
    def n_weights(self) -> int:
        """M: the number of weights."""
        return sum(fan_in * fan_out for fan_in, fan_out in self.weight_shapes)

    @property
    def n_biases(self) -> int:
        """Number of biases; zero without them."""
        return sum(self.layer_sizes[1:]) if self.bias else 0

    @property
    def size(self) -> int:
        """P: the number of all parameters."""
        return self.n_weights + self.n_biases

    @property
    def weight_offsets(self) -> tuple[int, ...]:
        """Index in the flat buffer at which each layer's weight starts."""
        sizes = [fan_in * fan_out for fan_in, fan_out in self.weight_shapes]
        return tuple(accumulate(sizes[:-1], initial=0))

    @property
    def bias_offsets(self) -> tuple[int, ...]:
        """Index in the flat buffer at which each layer's bias starts; empty without biases."""
        if not self.bias:
            return ()
        return tuple(accumulate(self.layer_sizes[1:-1], initial=self.n_weights))

    # `flat` may belong to any array library: views are made by slicing and reshaping alone.
    def weights(self, flat: NDArray) -> list[NDArray]:
        """Views (I, O) of the weights in `flat` (P,)."""
        return [
            flat[offset : offset + fan_in * fan_out].reshape(fan_in, fan_out)
            for offset, (fan_in, fan_out) in zip(self.weight_offsets, self.weight_shapes, strict=True)
        ]

    def biases(self, flat: NDArray) -> list[NDArray]:
        """Views (O,) of the biases in `flat` (P,); an empty list without biases."""
        return [
            flat[offset : offset + fan_out]
            for offset, fan_out in zip(self.bias_offsets, self.layer_sizes[1:], strict=False)
        ]


class Parameters:
    """A network's weights and biases on the host.

    Parameters
    ----------
    layout : ParameterLayout
    flat : ndarray (P,), optional
        float32 or float64, C-contiguous; used as it is, not copied. Zeros of `dtype` by default.
    dtype : str or dtype
        Read only when `flat` is not given.

    Attributes
    ----------
    flat : ndarray (P,)
    weights : list of ndarray (I, O)
        Views of `flat`: writing to them writes to it.
    biases : list of ndarray (O,)
        Likewise; empty for networks without biases.
    """

    __slots__ = ("biases", "flat", "layout", "weights")

    def __init__(
        self, layout: ParameterLayout, flat: NDArray[np.floating] | None = None, dtype: str = "float32"
    ) -> None:
        self.layout = layout
        self.flat = np.zeros(layout.size, dtype) if flat is None else flat
        if self.flat.shape != (layout.size,):
            raise DataError(f"{layout.size} parameters expected, got an array of shape {self.flat.shape}")
        self.weights = layout.weights(self.flat)
        self.biases = layout.biases(self.flat)

    @classmethod
    def from_arrays(
        cls, layout: ParameterLayout, weights: Sequence[ArrayLike], biases: Sequence[ArrayLike] | None, dtype: str
    ) -> Parameters:
        """Parameters holding copies of explicit arrays; biases default to zero.

        Raises
        ------
        DataError
            The number of arrays or the shape of one is not what `layout` says, or a value is not finite.
        """
        weights = _of_shapes("weight", layout.weight_shapes, weights)  # before room is made, which may be far too much
        biases = None if biases is None else _of_shapes("bias", layout.bias_shapes, biases)
        parameters = cls(layout, dtype=dtype)
        _fill("weight", parameters.weights, weights)
        if biases is not None:
            _fill("bias", parameters.biases, biases)
        return parameters

    def __reduce__(self) -> tuple[type[Parameters], tuple[ParameterLayout, NDArray]]:
        return Parameters, (self.layout, self.flat)  # a pickled view would come back as an array of its own

    def copy(self) -> Parameters:
        """An independent copy."""
        return Parameters(self.layout, self.flat.copy())

    def all_finite(self) -> bool:
        """Whether no parameter is NaN or infinite."""
        return bool(np.isfinite(self.flat).all())


def _of_shapes(kind: str, shapes: Sequence[tuple[int, ...]], arrays: Sequence[ArrayLike]) -> list[NDArray]:
    if len(arrays) != len(shapes):
        raise DataError(f"{len(shapes)} {kind} arrays expected, one per layer, got {len(arrays)}")
    found = []
    for index, (shape, array) in enumerate(zip(shapes, arrays, strict=True)):
        try:
            values = np.asarray(array)
        except ValueError as error:
            raise DataError(f"{kind} {index} is ragged: {error}") from error
        if values.shape != shape:
            hint = ", it looks transposed: pass array.T" if values.T.shape == shape and len(shape) == 2 else ""
            raise DataError(f"{kind} {index} must have shape {shape}, got {values.shape}{hint}")
        found.append(values)
    return found


def _fill(kind: str, views: list[NDArray], arrays: Sequence[NDArray]) -> None:
    for index, (view, values) in enumerate(zip(views, arrays, strict=True)):
        try:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
                view[...] = values
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{kind} {index} must hold numbers: {error}") from error
        if not np.isfinite(view).all():
            raise DataError(f"{kind} {index} holds a value that is not finite")
