"""Machine code that is kept on disk: each function by itself, and for each kind a list of the functions that it needs.

It is kept in a folder for all that it depends on: the sources, the versions of the compiler, and the processor. That
folder is where Numba would have it: in ``NUMBA_CACHE_DIR`` if that is set, else beside the sources if they may be
written to, else in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import reference
from fastnet.backends.numba_backend.machine_code import MachineCode

__all__ = ["is_anything_kept", "keep", "keep_kind", "read", "read_kind"]

logger = logging.getLogger("fastnet")

_PREFIX = "fastnet-"
_SECONDS_TO_KEEP = 60 * 86_400

# What Numba reads from the environment that makes no difference to what it compiles.
_IRRELEVANT = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}


def read(key: str) -> MachineCode | None:
    """The function with this key; None if it is not there, or damaged."""
    for folder in _folders():
        with suppress(OSError, ValueError):
            digest, symbol, object_file = (folder / f"{key}.o").read_bytes().split(b"\n", 2)
            if hashlib.sha256(object_file).hexdigest() == digest.decode():
                return MachineCode(key, symbol.decode(), object_file)
    return None


def keep(code: MachineCode) -> None:
    """Write a function to disk."""
    head = f"{hashlib.sha256(code.object_file).hexdigest()}\n{code.symbol}\n"
    _write(f"{code.key}.o", head.encode() + code.object_file)


def read_kind(kind: Any) -> dict[str, MachineCode] | None:
    """The functions that a kind needs, by the names that it has for them; None unless all are there."""
    for folder in _folders():
        with suppress(OSError, ValueError):
            keys = json.loads((folder / _file_of_kind(kind)).read_text(encoding="utf-8"))
            found = {name: read(key) for name, key in keys.items()}
            codes = {name: code for name, code in found.items() if code is not None}
            if len(codes) == len(keys):
                return codes
    return None


def keep_kind(kind: Any, codes: Mapping[str, MachineCode]) -> None:
    """Write down which functions a kind needs."""
    keys = {name: code.key for name, code in codes.items()}
    _write(_file_of_kind(kind), json.dumps(keys).encode())


def is_anything_kept() -> bool:
    """Whether some function of these sources has been compiled for this processor, or nothing can be kept."""
    return any(any(folder.glob("*.o")) for folder in _folders()) or _own_folder() is None


def _file_of_kind(kind: Any) -> str:
    return f"kind-{hashlib.sha256(repr(kind).encode()).hexdigest()[:16]}.json"


def _write(name: str, content: bytes) -> None:
    """Nobody ever finds half of a file."""
    folder = _own_folder()
    if folder is None:
        _log_missing_folder()
        return
    with suppress(OSError):  # a full disk, or a folder that is gone: the next process compiles once more
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(folder / name)


@cache
def _log_missing_folder() -> None:
    logger.warning(
        "no folder to keep compiled code in, so every process compiles anew, which takes some seconds: "
        "set NUMBA_CACHE_DIR to a folder that can be written to"
    )


def _roots() -> list[Path]:
    """Where folders may be, the best place first."""
    asked_for = os.environ.get("NUMBA_CACHE_DIR")
    if asked_for:
        return [Path(asked_for)]
    if sys.platform == "win32":
        of_user = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        of_user = "~/Library/Caches"
    else:
        of_user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [Path(__file__).parent / "__pycache__", Path(of_user).expanduser() / "fastnet"]


@cache
def _folders() -> list[Path]:
    """Where there may be something to read."""
    return [root / f"{_PREFIX}{_digest()}" for root in _roots()]


@cache
def _own_folder() -> Path | None:
    """The first that can be written to."""
    for folder in _folders():
        with suppress(OSError):
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                _sweep(folder)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    return None


def _sweep(folder: Path) -> None:
    """Delete what has been compiled long ago from sources, or by versions, that are gone."""
    for other in folder.parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > _SECONDS_TO_KEEP:
                shutil.rmtree(other)


@cache
def _digest() -> str:
    """Stands for everything that decides what the compiler makes of a kernel, and whether this processor can run it."""
    import llvmlite.binding as llvm

    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parent.rglob("*.py")), Path(reference.__file__)]:
        digest.update(path.read_bytes())
    variables = {
        name: value for name, value in os.environ.items() if name.startswith("NUMBA_") and name not in _IRRELEVANT
    }
    versions = version("numba"), version("llvmlite"), np.__version__, sys.implementation.cache_tag
    processor = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    digest.update(repr((versions, processor, sorted(variables.items()))).encode())
    return digest.hexdigest()[:16]
