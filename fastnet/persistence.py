"""Networks and checkpoints as safetensors files: no pickle, checked against damage, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import FastnetError, FileFormatError
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec
from fastnet.targets import TargetCoding

__all__ = ["SavedNetwork", "check_writable", "load_arrays", "load_network", "replacing", "save_arrays", "save_network"]

_NETWORK = "fastnet.network/1"


class SavedNetwork(NamedTuple):
    """What a file holds of a network; `coding` is None before a fit, and `feature_names` may be none."""

    network: NetworkSpec
    parameters: Parameters
    coding: TargetCoding | None
    feature_names: tuple[str, ...] = ()


def save_network(path: str | os.PathLike[str], saved: SavedNetwork) -> None:
    """Write a network, so that ``load_network`` gives the same one back, bit for bit.

    Raises
    ------
    OSError
        The file cannot be written; one that was there before stays as it was.
    """
    header = {
        "network": asdict(saved.network),
        "coding": None if saved.coding is None else _coding_to_dict(saved.coding),
        "feature_names": saved.feature_names,
    }
    tensors = {f"weight_{layer}": weight for layer, weight in enumerate(saved.parameters.weights)}
    tensors |= {f"bias_{layer}": bias for layer, bias in enumerate(saved.parameters.biases)}
    save_arrays(path, _NETWORK, header, tensors)


def load_network(path: str | os.PathLike[str]) -> SavedNetwork:
    """Read what :func:`save_network` wrote.

    Raises
    ------
    FileFormatError
        The file is damaged, truncated, or not a fastnet network.
    OSError
        The file cannot be read.
    """
    header, tensors = load_arrays(path, _NETWORK)
    try:
        described = header["network"]
        network = NetworkSpec(**described | {name: tuple(described[name]) for name in ("layer_sizes", "activations")})
        weights = [tensors[f"weight_{layer}"] for layer in range(network.n_layers)]
        biases = [tensors[f"bias_{layer}"] for layer in range(network.n_layers)] if network.bias else None
        parameters = Parameters.from_arrays(ParameterLayout.of(network), weights, biases, network.dtype)
        coding = None if header["coding"] is None else _coding_from_dict(header["coding"])
        feature_names = tuple(map(str, header.get("feature_names", ())))  # which were not kept at first
    except (KeyError, TypeError, OverflowError, FastnetError) as error:
        raise FileFormatError(f"{path}: written by another version of fastnet, or by hand: {error}") from error
    return SavedNetwork(network, parameters, coding, feature_names)


def _coding_to_dict(coding: TargetCoding) -> dict[str, Any]:
    return {"task": coding.task, "classes": None if coding.classes is None else coding.classes.tolist()}


def _coding_from_dict(described: dict[str, Any]) -> TargetCoding:
    classes = described["classes"]
    return TargetCoding(described["task"], None if classes is None else np.asarray(classes))


def save_arrays(path: str | os.PathLike[str], kind: str, header: dict[str, Any], tensors: dict[str, NDArray]) -> None:
    """Write named arrays and a JSON header, as :func:`replacing` does it.

    Parameters
    ----------
    path : path-like
    kind : str
        What the file is, checked when it is read.
    header : dict
        Anything JSON can hold.
    tensors : dict of str to ndarray

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from safetensors.numpy import save

    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    body = save(tensors, metadata={"kind": kind, "header": text, "digest": _digest(kind, text, tensors)})
    with replacing(path) as file:
        file.write(body)


def load_arrays(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read what :func:`save_arrays` wrote: the header and the arrays.

    Raises
    ------
    FileFormatError
        The file is damaged, truncated, foreign, or of another kind.
    OSError
        The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with Path(path).open("rb"):  # so that what is missing or forbidden is told by Python, with its name
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata.get("kind", ""), kind)  # before all of a large foreign file is read
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileFormatError:
        raise
    except (SafetensorError, ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: damaged, truncated, or not a safetensors file: {error}") from error
    if metadata.get("digest") != _digest(kind, metadata.get("header", ""), tensors):
        raise FileFormatError(f"{path}: damaged: its contents do not match the digest written with them")
    return json.loads(metadata["header"]), tensors


def _check_kind(path: str | os.PathLike[str], found: str, kind: str) -> None:
    if not found.startswith("fastnet."):
        raise FileFormatError(f"{path}: a safetensors file, but not written by fastnet")
    if found != kind:
        raise FileFormatError(f"{path}: this is a {found!r} file, and a {kind!r} file is needed")


def _digest(kind: str, header: str, tensors: dict[str, NDArray]) -> str:
    digest = hashlib.blake2b(f"{kind}\0{header}".encode(), digest_size=16)
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file atomically: what lies at `path` is the old one or the new one, never half, whatever goes wrong.

    A symbolic link stays one: what it points to is replaced.

    Raises
    ------
    OSError
        The file cannot be written, or what lies there is no regular file; `path` is named in it.
    """
    with _naming(path):
        target = _regular_file(path)
        descriptor, temporary = _make_temporary(target)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files for the owner alone
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before long work whether :func:`replacing` could begin now; what lies at `path` stays as it is.

    Raises
    ------
    OSError
        As :func:`replacing`.
    """
    with _naming(path):
        descriptor, temporary = _make_temporary(_regular_file(path))
        os.close(descriptor)
        Path(temporary).unlink()


def _make_temporary(target: Path) -> tuple[int, str]:
    return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")


def _regular_file(path: str | os.PathLike[str]) -> Path:
    """Where a file is to be written, links followed; nothing else than a file may lie there."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "Exists and is no regular file")
    return Path(os.path.realpath(path))


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the user's path in errors, not that of a temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
