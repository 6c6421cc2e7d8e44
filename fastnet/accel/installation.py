"""Turning the accelerator on and off. Neither imports scikit-learn."""

from __future__ import annotations

import logging
import os
import sys

import fastnet_accel

__all__ = ["install", "is_installed", "load_ipython_extension", "uninstall", "unload_ipython_extension"]

logger = logging.getLogger("fastnet")

SWITCH = "FASTNET_ACCEL"

# The switch's value before install(), and whether it was set at all.
_environment_before: dict[str, str | None] = {}


def install() -> None:
    """Replace scikit-learn's ``MLPClassifier`` and ``MLPRegressor``, now or when they are imported.

    Sets ``FASTNET_ACCEL=1`` in the environment, so that processes started from this one, such as joblib's workers, are
    accelerated too. Does nothing if it was done before.

    Raises
    ------
    MissingPackageError
        scikit-learn is imported already, and older than 1.6.
    """
    if is_installed():
        return
    if "sklearn.neural_network" in sys.modules:
        from fastnet.accel.replacement import replace

        replace()
        logger.warning(
            "fastnet.accel: sklearn.neural_network is imported already. Names taken from it before, as by 'from "
            "sklearn.neural_network import MLPClassifier', are not replaced: import them again, or install first."
        )
    _environment_before[SWITCH] = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    fastnet_accel.watch()


def uninstall() -> None:
    """Put scikit-learn's own classes, and the environment, back in place. Estimators that exist stay what they are."""
    fastnet_accel.unwatch()
    replacement = sys.modules.get("fastnet.accel.replacement")
    if replacement is not None:
        replacement.put_back()
    for name, value in _environment_before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _environment_before.clear()


def is_installed() -> bool:
    """Whether scikit-learn's classes are replaced, or will be when they are imported."""
    return fastnet_accel.is_watching()


def load_ipython_extension(ipython: object) -> None:  # noqa: ARG001
    """``%load_ext fastnet.accel``."""
    install()


def unload_ipython_extension(ipython: object) -> None:  # noqa: ARG001
    """``%unload_ext fastnet.accel``."""
    uninstall()
