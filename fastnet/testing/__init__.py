"""The conformance kit: what every backend must compute, checked against the reference in float64.

A third party runs it unchanged::

    @pytest.mark.parametrize("name", conformance_checks())
    def test_backend(name):
        conformance_checks()[name](MyBackend("auto", None))

The oracle chain is: finite differences check the reference in float64; the reference checks every plan in its own
dtype, first its gradients, then its trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from fastnet.backends.interface import Backend
from fastnet.optimizers import SGD, Adam, AdamW, Optimizer
from fastnet.spec import ACTIVATIONS, HEADS
from fastnet.testing.checks import (
    check_gradients,
    check_large_logits,
    check_manners,
    check_nan_is_told,
    check_prediction,
    check_recovery,
    check_repeatable,
    check_state,
    check_trajectory,
)
from fastnet.testing.problems import TOLERANCE_FACTOR, Problem, assert_close, make_problem, oracle, tolerance

__all__ = [
    "TOLERANCE_FACTOR",
    "Problem",
    "assert_close",
    "check_backend",
    "conformance_checks",
    "make_problem",
    "oracle",
    "tolerance",
]

_SQUARED = {"output": "identity", "loss": "squared_error"}
_BYTES: dict[str, Any] = {"storage": "uint8", "input_scale": 1 / 255}
_PIXELS: dict[str, Any] = {"storage": "pixels", "input_scale": 1 / 255}

_GRADIENT_CASES: dict[str, dict[str, Any]] = {
    "one-sample": {"n_samples": 1},
    "two-samples-no-hidden-layer": {"layer_sizes": (4, 3), "n_samples": 2},
    "all-sizes-one": {"layer_sizes": (1, 1, 1), "n_samples": 1, **_SQUARED},
    "four-hidden-layers": {"layer_sizes": (6, 5, 4, 5, 6, 3), "n_samples": 40},
    "ragged-tiles": {"layer_sizes": (9, 17, 33, 2), "n_samples": 263, "activation": "relu"},
    "wide": {"layer_sizes": (130, 150, 11), "n_samples": 70},
    "no-bias": {"bias": False},
    "sum": {"reduction": "sum"},
    "sum-weighted": {"reduction": "sum", "weighted": True},
    "l2": {"l2": 0.3},
    "l2-averaged-weighted": {"l2": 30.0, "l2_averaged": True, "weighted": True},
    "weighted": {"weighted": True},
    "weighted-csr": {"weighted": True, "storage": "csr"},
    "uint8": _BYTES,
    "pixels": _PIXELS,
    "pixels-wide": {**_PIXELS, "layer_sizes": (40, 37, 3), "n_samples": 300, "weighted": True},
    "pixels-many-tiles": {**_PIXELS, "layer_sizes": (300, 16, 10), "n_samples": 1500},
    "csr": {"storage": "csr", "input_scale": 0.5},
    "csr-no-hidden-layer": {"storage": "csr", "layer_sizes": (30, 3), "n_samples": 200},
    "multilabel-of-one": {"layer_sizes": (5, 4, 1), "output": "sigmoid"},
    "one-versus-rest": {"output": "sigmoid", "task": "multiclass"},
    "two-outputs": {"layer_sizes": (5, 4, 2), **_SQUARED},
}

_TRAJECTORY_CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"optimizer": SGD(momentum=0.9)},
    "nesterov": {"optimizer": SGD(momentum=0.9, nesterov=True)},
    "adam": {"optimizer": Adam()},
    "adamw": {"optimizer": AdamW(weight_decay=0.5)},
    "regression": {**_SQUARED, "layer_sizes": (5, 7, 2)},
    "multilabel": {"output": "sigmoid"},
    "one-versus-rest": {"output": "sigmoid", "task": "multiclass"},
    "last-batch-partial": {"n_samples": 75, "batch_size": 20, "optimizer": SGD(momentum=0.9)},
    "batches-adam-l2": {"n_samples": 75, "batch_size": 20, "optimizer": Adam(), "l2": 0.1},
    "batches-l2-averaged": {"n_samples": 75, "batch_size": 20, "l2": 3.0, "l2_averaged": True, "weighted": True},
    "batches-weighted": {"n_samples": 75, "batch_size": 20, "weighted": True},
    "pixels": {"layer_sizes": (30, 20, 3), "n_samples": 300, **_PIXELS},
    "batches-uint8": {"n_samples": 75, "batch_size": 20, **_BYTES},
    "batches-pixels": {"layer_sizes": (30, 21, 3), "n_samples": 75, "batch_size": 20, **_PIXELS},
    "batches-csr": {"n_samples": 75, "batch_size": 20, "storage": "csr"},
    "batches-of-one": {"n_samples": 6, "batch_size": 1},
}


def conformance_checks(dtypes: tuple[str, ...] = ("float32", "float64")) -> dict[str, Callable[[Backend], None]]:
    """All checks by name; each takes a backend and raises AssertionError where it fails."""
    checks: dict[str, Callable[[Backend], None]] = {}
    for dtype in dtypes:
        checks |= {f"{name}-{dtype}": check for name, check in _numerical_checks(dtype).items()}
    optimizers: tuple[Optimizer, ...] = (SGD(), SGD(momentum=0.9), Adam(), AdamW())
    checks |= {f"state-{index}": partial(check_state, optimizer=each) for index, each in enumerate(optimizers)}
    checks |= {f"nan-{name}": partial(check_nan_is_told, activation=name) for name in ACTIVATIONS}
    checks["manners"] = check_manners
    return checks


def check_backend(backend: Backend) -> None:
    """Run every check.

    Raises
    ------
    AssertionError
        Naming each check that failed, and how.
    """
    failures = []
    for name, check in conformance_checks().items():
        try:
            check(backend)
        except AssertionError as error:
            failures.append(f"{name}: {error}")
    assert not failures, f"backend {backend.name!r} fails {len(failures)} checks:\n" + "\n".join(failures)


def _numerical_checks(dtype: str) -> dict[str, Callable[[Backend], None]]:
    heads = [(output, loss) for output, losses in HEADS.items() for loss in losses]
    checks: dict[str, Callable[[Backend], None]] = {}
    for activation, (output, loss) in product(ACTIVATIONS, heads):
        checks[f"gradients-{activation}-{output}-{loss}"] = partial(
            check_gradients, activation=activation, output=output, loss=loss, dtype=dtype
        )
    for name, options in _GRADIENT_CASES.items():
        checks[f"gradients-{name}"] = partial(check_gradients, **options, dtype=dtype)
    for name, options in _TRAJECTORY_CASES.items():
        checks[f"trajectory-{name}"] = partial(check_trajectory, **options, dtype=dtype)
        checks[f"repeatable-{name}"] = partial(check_repeatable, **options, dtype=dtype)
        checks[f"recovery-{name}"] = partial(check_recovery, **options, dtype=dtype)
    for output, storage in product(HEADS, ("dense", "uint8", "csr")):
        form: dict[str, Any] = _BYTES if storage == "uint8" else {"storage": storage}
        checks[f"prediction-{output}-{storage}"] = partial(
            check_prediction, output=output, loss=HEADS[output][0], dtype=dtype, **form
        )
    for output in ("softmax", "sigmoid"):
        checks[f"large-logits-{output}"] = partial(check_large_logits, output=output, dtype=dtype)
    return checks
