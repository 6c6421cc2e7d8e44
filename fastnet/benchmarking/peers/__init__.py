"""What someone would use instead of fastnet, doing the same steps: the same start, samples and batches.

Each library is imported when its peer is looked up, and by that peer's module alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastnet.benchmarking.peers.peer import AbsentError, Peer
from fastnet.errors import unknown_name

__all__ = ["PEERS", "AbsentError", "OpenPeer", "Peer", "find_peer"]

# Binds a peer to a workload, limited to a number of threads or, given None, as the library comes.
OpenPeer = Callable[..., Peer]


def _numpy_script(dtype: str) -> OpenPeer:
    from fastnet.benchmarking.peers.numpy_script import NumpyScript

    return partial(NumpyScript, dtype=dtype)


def _scikit_learn() -> OpenPeer:
    from fastnet.benchmarking.peers.sklearn_peer import ScikitLearn

    return ScikitLearn


def _pytorch(*, compiled: bool) -> OpenPeer:
    from fastnet.benchmarking.peers.torch_peer import Torch

    return partial(Torch, compiled=compiled)


def _jax() -> OpenPeer:
    from fastnet.benchmarking.peers.jax_peer import Jax

    return Jax


PEERS: dict[str, Callable[[], OpenPeer]] = {
    "NumPy script, float64": partial(_numpy_script, "float64"),
    "NumPy script, float32": partial(_numpy_script, "float32"),
    "scikit-learn": _scikit_learn,
    "PyTorch eager": partial(_pytorch, compiled=False),
    "PyTorch compiled": partial(_pytorch, compiled=True),
    "JAX": _jax,
}


def find_peer(name: str) -> OpenPeer:
    """Import what a peer needs; what is returned takes a `LoadedWorkload` and ``n_threads``, an int or None.

    Raises
    ------
    SpecError
        There is no peer called `name`.
    AbsentError
        It is not installed. What is returned raises it too, for workloads that the peer cannot train.
    """
    if name not in PEERS:
        raise unknown_name("peer", name, PEERS)
    try:
        return PEERS[name]()
    except ModuleNotFoundError as error:
        raise AbsentError(f"{error.name} is not installed") from error
