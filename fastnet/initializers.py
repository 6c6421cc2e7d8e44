"""Initial weights, drawn in float64 on the host, so that every backend and dtype starts from the same numbers."""

# Legend: I fan-in, O fan-out of a layer.

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import SpecError, unknown_name
from fastnet.parameters import ParameterLayout, Parameters

__all__ = ["SCHEMES", "RandomSource", "draw", "draw_seed", "initialize", "random_source"]

RandomSource = np.random.Generator | np.random.RandomState


def _zeros(_: RandomSource, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray:
    return np.zeros(shape)


def _glorot_uniform(random: RandomSource, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray:
    """Uniform within sqrt(6 / (I + O)) (Glorot and Bengio 2010, equation 16)."""
    bound = np.sqrt(6.0 / (fan_in + fan_out))
    return random.uniform(-bound, bound, tuple(shape))


def _he_normal(random: RandomSource, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray:
    """Normal with variance 2 / I (He et al. 2015, equation 10)."""
    return random.standard_normal(tuple(shape)) * np.sqrt(2.0 / fan_in)


def _normal(random: RandomSource, shape: Sequence[int], fan_in: int, fan_out: int) -> NDArray:
    """Normal with variance 1 / I (LeCun et al. 1998, equation 16)."""
    return random.standard_normal(tuple(shape)) / np.sqrt(fan_in)


SCHEMES: dict[str, Callable[..., NDArray]] = {
    "glorot_uniform": _glorot_uniform,
    "he_normal": _he_normal,
    "normal": _normal,
    "zeros": _zeros,
}

_WITH_ARGUMENTS = re.compile(r"(uniform|normal)\s*\(([^,()]+),([^,()]+)\)")


def draw(scheme: str, shape: Sequence[int], random: RandomSource, *, fan_in: int, fan_out: int) -> NDArray[np.float64]:
    """Draw an array of `shape` by a scheme's name.

    Parameters
    ----------
    scheme : str
        "glorot_uniform", "he_normal", "normal" (variance 1 / I), "zeros", "uniform(low, high)" or "normal(mean, std)".
    shape : sequence of int
    random : Generator or RandomState
    fan_in, fan_out : int
        Of the layer that the array belongs to.

    Raises
    ------
    SpecError
        The scheme is unknown, or its arguments are not numbers.
    """
    match = _WITH_ARGUMENTS.fullmatch(scheme.strip()) if isinstance(scheme, str) else None
    if match:
        first, second = _numbers(scheme, match.group(2), match.group(3))
        try:
            return getattr(random, match.group(1))(first, second, tuple(shape))
        except (ValueError, OverflowError) as error:
            raise SpecError(f"init {scheme!r}: {error}") from error
    if scheme not in SCHEMES:
        raise unknown_name("init", scheme, [*SCHEMES, "uniform(low, high)", "normal(mean, std)"])
    return SCHEMES[scheme](random, shape, fan_in, fan_out)


def initialize(
    layout: ParameterLayout,
    init: str | Sequence[Any],
    bias_init: str | Sequence[Any],
    random: RandomSource,
    dtype: str,
) -> Parameters:
    """Parameters for a new network, drawn layer by layer, a layer's weight before its bias.

    Parameters
    ----------
    layout : ParameterLayout
    init, bias_init : str or sequence of arrays
        A scheme of :func:`draw`, or one array per layer: (I, O) for weights, (O,) for biases.
    random : Generator or RandomState
    dtype : str

    Raises
    ------
    SpecError
        A scheme is unknown, or it is neither a scheme nor a sequence.
    DataError
        Explicit arrays do not fit the layout.
    """
    weights, biases = _given("init", init), _given("bias_init", bias_init)
    for layer, (fan_in, fan_out) in enumerate(layout.weight_shapes):
        fans = {"fan_in": fan_in, "fan_out": fan_out}
        if isinstance(init, str):
            weights.append(draw(init, (fan_in, fan_out), random, **fans))
        if isinstance(bias_init, str) and layout.bias:
            biases.append(draw(bias_init, layout.layer_sizes[layer + 1 : layer + 2], random, **fans))
    return Parameters.from_arrays(layout, weights, biases, dtype)


def _given(name: str, init: str | Sequence[Any]) -> list[Any]:
    """Arrays that are given one by one; none where a scheme is to draw them."""
    try:
        return [] if isinstance(init, str) else list(init)
    except TypeError:
        raise SpecError(f"{name} must be a scheme such as 'he_normal', or one array per layer, got {init!r}") from None


def _numbers(scheme: str, *texts: str) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise SpecError(f"init {scheme!r}: the arguments must be two numbers, as in 'uniform(-0.5, 0.5)'") from None


def draw_seed(random: RandomSource) -> int:
    """A seed for later, drawn from a generator."""
    return int(random.uniform(0, 2**32))


def random_source(seed: int | RandomSource | None) -> tuple[RandomSource, int | None]:
    """The generator of initial weights, and the seed of everything drawn later.

    It is None for a generator of the caller's: then it is to be drawn from it, once the weights have been.
    """
    if isinstance(seed, np.random.Generator | np.random.RandomState):
        return seed, None
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SpecError(f"seed must be a whole number of at least 0, a Generator or a RandomState, got {seed!r}")
    return np.random.default_rng(int(seed)), int(seed)
