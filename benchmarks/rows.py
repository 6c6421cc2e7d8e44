"""The rows of every table: fastnet's backends, and what someone would use instead."""

from __future__ import annotations

from functools import partial

from fastnet.backends.interface import Backend
from fastnet.backends.registry import backend_names, choose_backend
from fastnet.benchmarking import BackendTrial, OpenTrial, Trial, n_default_threads
from fastnet.benchmarking.peers import PEERS, AbsentError, find_peer
from fastnet.errors import BackendUnavailableError, UnsupportedSpecError
from fastnet.workloads import LoadedWorkload

OURS = "fastnet "
ROWS = [*(OURS + name for name in backend_names()), *PEERS]


def find_row(name: str) -> OpenTrial:
    """Import what a row needs.

    Raises
    ------
    AbsentError
        It is not installed, or cannot run here. What is returned raises it too, for workloads that it cannot train.
    """
    if not name.startswith(OURS):
        return find_peer(name)
    try:
        return partial(_open_backend, choose_backend(name.removeprefix(OURS)).backend)
    except BackendUnavailableError as error:
        raise AbsentError(str(error)) from error


def _open_backend(backend: Backend, loaded: LoadedWorkload) -> Trial:
    try:
        return BackendTrial(loaded, backend, n_default_threads())
    except UnsupportedSpecError as error:
        raise AbsentError(str(error)) from error
