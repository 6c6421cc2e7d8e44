"""The rows of every table: fastnet's backends, and what someone would use instead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from peer import AbsentError

from fastnet.backends.interface import Backend
from fastnet.backends.registry import choose_backend
from fastnet.benchmarking import BackendTrial, Trial, n_default_threads
from fastnet.errors import BackendUnavailableError, UnsupportedSpecError
from fastnet.workloads import LoadedWorkload

# Binds a row to a workload. Importing what it needs is another matter, and another time.
OpenTrial = Callable[[LoadedWorkload], Trial]


def fastnet_backend(name: str) -> OpenTrial:
    try:
        return partial(_open_backend, choose_backend(name).backend)
    except BackendUnavailableError as error:
        raise AbsentError(str(error)) from error


def _open_backend(backend: Backend, loaded: LoadedWorkload) -> Trial:
    try:
        return BackendTrial(loaded, backend, n_default_threads())
    except UnsupportedSpecError as error:
        raise AbsentError(str(error)) from error


def numpy_script(dtype: str) -> OpenTrial:
    from numpy_script import NumpyScript

    return partial(NumpyScript, dtype=dtype)


def scikit_learn() -> OpenTrial:
    from sklearn_peer import ScikitLearn

    return ScikitLearn


def pytorch(*, compiled: bool) -> OpenTrial:
    from torch_peer import Torch

    return partial(Torch, compiled=compiled)


def jax() -> OpenTrial:
    from jax_peer import Jax

    return Jax


ROWS: dict[str, Callable[[], OpenTrial]] = {
    "fastnet numpy": partial(fastnet_backend, "numpy"),
    "fastnet numba": partial(fastnet_backend, "numba"),
    "fastnet cupy": partial(fastnet_backend, "cupy"),
    "NumPy script, float64": partial(numpy_script, "float64"),
    "NumPy script, float32": partial(numpy_script, "float32"),
    "scikit-learn": scikit_learn,
    "PyTorch eager": partial(pytorch, compiled=False),
    "PyTorch compiled": partial(pytorch, compiled=True),
    "JAX": jax,
}


def find_row(name: str) -> OpenTrial:
    """Import what a row needs.

    Raises
    ------
    AbsentError
        It is not installed, or cannot run here. What is returned raises it too, for workloads that it cannot train.
    """
    try:
        return ROWS[name]()
    except ModuleNotFoundError as error:
        raise AbsentError(f"{error.name} is not installed") from error
