"""Waits for scikit-learn's networks to be imported, and then has :mod:`fastnet.accel` replace them.

``fastnet_accel.pth`` imports this when Python starts, in every process that has ``FASTNET_ACCEL`` set. It lies beside
the package because importing anything of the package imports NumPy, which most processes need not wait for.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as typing's, which would take longer to import than all the rest
if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["is_watching", "unwatch", "watch"]

# Classes that replace others derive from them: so both modules must be there, whichever is imported first.
_REPLACED = "sklearn.neural_network"
_REPLACING = "fastnet.sklearn"


class _Finder:
    """Leaves it to the finders behind it to find a module, and has something done after it was imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in (_REPLACED, _REPLACING):
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(name, path, target) for finder in behind if hasattr(finder, "find_spec"))
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Another loader, until it has executed its module."""

    unfinished = 0  # modules that are being executed, of those that are waited for

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        _Loader.unfinished += 1
        try:
            self._loader.exec_module(module)
            if _Loader.unfinished == 1 and _REPLACED in sys.modules:
                _replace()
        finally:
            _Loader.unfinished -= 1


def _replace() -> None:
    """Replace scikit-learn's classes; whatever is wrong with fastnet, scikit-learn itself goes on working."""
    try:
        from fastnet.accel.replacement import replace

        replace()
    except Exception as error:
        if os.environ.get("FASTNET_ACCEL_STRICT") == "1":
            raise
        import logging

        message = "fastnet.accel: nothing is accelerated, scikit-learn runs its own code: %s: %s"
        logging.getLogger("fastnet").warning(message, type(error).__name__, error)


_finder = _Finder()


def watch() -> None:
    """Have the classes replaced as soon as they are imported."""
    if not is_watching():
        sys.meta_path.insert(0, _finder)


def unwatch() -> None:
    """Undo :func:`watch`; what was replaced stays so."""
    if is_watching():
        sys.meta_path.remove(_finder)


def is_watching() -> bool:
    """Whether :func:`watch` is in force."""
    return _finder in sys.meta_path
