"""Backends by name, imported only when asked for. Third parties register under the entry point ``fastnet.backends``."""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from functools import cache

from fastnet.backends.interface import Availability, Backend, BackendFactory
from fastnet.backends.work import Work
from fastnet.errors import BackendUnavailableError, SpecError, require_count, unknown_name

__all__ = [
    "ENTRY_POINT_GROUP",
    "Choice",
    "available_backends",
    "backend_names",
    "choose_backend",
    "create_backend",
    "seconds_to_start",
]

ENTRY_POINT_GROUP = "fastnet.backends"

# In the order in which "auto" tries them.
_BUILT_IN = {
    "cupy": "fastnet.backends.cupy_backend:CupyBackend",
    "numba": "fastnet.backends.numba_backend:NumbaBackend",
    "numpy": "fastnet.backends.array_backend:NumpyBackend",
}
_ON_A_GPU = {"cupy"}

logger = logging.getLogger("fastnet")


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that will run, and why it was this one."""

    backend: Backend
    reason: str


@cache
def _factories() -> dict[str, str]:
    """Name -> "module:attribute" of every known backend; the built-in ones cannot be replaced."""
    from importlib.metadata import entry_points  # takes longer to import than all of fastnet

    third_party = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return _BUILT_IN | {name: value for name, value in third_party.items() if name not in _BUILT_IN}


def backend_names() -> list[str]:
    """Names of all known backends, whether or not they can run here."""
    return list(_factories())


def create_backend(name: str, device: str = "auto", n_threads: int | None = None) -> Backend:
    """The backend called `name`, bound to a device; whether it can run is for `availability` to say.

    Raises
    ------
    SpecError
        No backend has this name, or the device or the number of threads has no meaning.
    BackendUnavailableError
        The backend cannot be imported, or does not drive this kind of device.
    """
    check_device(device)
    if n_threads is not None:
        require_count("n_threads", n_threads)
        n_threads = int(n_threads)
    if not isinstance(name, str) or name not in _factories():
        raise unknown_name("backend", name, ["auto", *_factories()])
    module_name, _, attribute = _factories()[name].partition(":")
    try:
        factory: BackendFactory = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a broken installation may raise anything on import
        raise BackendUnavailableError(f"backend {name!r} cannot be imported: {error}") from error
    return factory(device, n_threads)


def available_backends() -> dict[str, Availability]:
    """What can run on this machine, and for what cannot, why.

    Returns
    -------
    dict of str to Availability
        By backend name, in the order in which ``backend="auto"`` tries them.
    """
    return {name: _availability(name) for name in backend_names()}


def _availability(name: str) -> Availability:
    try:
        return create_backend(name).availability()
    except Exception as error:  # one broken plug-in must not hide the others
        return Availability(False, str(error))


def choose_backend(
    name: str | None = None, device: str = "auto", n_threads: int | None = None, work: Work | None = None
) -> Choice:
    """Resolve what a user asked for: argument, then environment, then automatic.

    Parameters
    ----------
    name : str or None
        A backend's name or "auto". None or "auto" reads ``FASTNET_BACKEND``, and without it takes the first backend
        that can run here.
    device : str
        "auto", "cpu", "cuda", or "cuda:1".
    n_threads : int or None
        None reads ``FASTNET_NUM_THREADS``.
    work : Work or None
        What is to be done, where that is known: "auto" leaves it to the CPU where a GPU would take longer, unless
        `device` says where.

    Returns
    -------
    Choice

    Raises
    ------
    BackendUnavailableError
        A backend was asked for by name, or a device, that cannot be used here; the message says what to do.
    SpecError
        A name or number has no meaning.
    """
    n_threads = n_threads if n_threads is not None else _threads_from_environment()
    asked_by = "the argument"
    if name in (None, "auto"):
        name, asked_by = os.environ.get("FASTNET_BACKEND") or "auto", "FASTNET_BACKEND"
    if name != "auto":
        try:
            backend = create_backend(name, device, n_threads)
        except BackendUnavailableError as error:
            raise BackendUnavailableError(f"{error} (asked for by {asked_by})") from error
        availability = backend.availability()
        if not availability.ok:
            raise BackendUnavailableError(
                f"backend {name!r}, asked for by {asked_by}, cannot run here: {availability.reason}"
            )
        return Choice(backend, f"asked for by {asked_by}")
    return _choose_automatically(device, n_threads, work)


def _choose_automatically(device: str, n_threads: int | None, work: Work | None) -> Choice:
    check_device(device)
    names, passed_over = backend_names(), []
    if device == "cpu":
        names = [name for name in names if name not in _ON_A_GPU]
    if device == "auto" and work is not None and (too_little := work.describe_if_small(n_threads)):
        passed_over = [f"{name}: {too_little}" for name in names if name in _ON_A_GPU]
        names.sort(key=lambda name: name in _ON_A_GPU)  # the others keep their order
    for name in names:
        try:
            backend = create_backend(name, device, n_threads)
        except BackendUnavailableError as error:
            passed_over.append(str(error))
            continue
        availability = backend.availability()
        if availability.ok:
            reason = "; ".join([f"the first of {', '.join(names)} that can run here", *passed_over])
            logger.info("backend %s: %s", name, reason)
            return Choice(backend, reason)
        passed_over.append(f"{name}: {availability.reason}")
    raise BackendUnavailableError(f"no backend can run on device {device!r}: {'; '.join(passed_over)}")


def seconds_to_start() -> float:
    """About how long the backend that "auto" tries first on the CPU would take here before its first step."""
    name = next(name for name in backend_names() if name not in _ON_A_GPU)
    try:
        backend = create_backend(name)
        return backend.seconds_to_start() if hasattr(backend, "seconds_to_start") else 0.0
    except Exception:  # whether it can be used at all is another question
        return 0.0


def check_device(device: object) -> None:
    """Raise `SpecError` for a device that has no meaning."""
    if isinstance(device, str):
        kind, _, index = device.partition(":")
        if device in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdecimal()):
            return
    raise SpecError(f"unknown device {device!r}: Choose from auto, cpu, cuda (the first GPU), cuda:1 (the second).")


def _threads_from_environment() -> int | None:
    text = os.environ.get("FASTNET_NUM_THREADS")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SpecError(f"FASTNET_NUM_THREADS must be a whole number of at least 1, got {text!r}")
    return int(text)
