"""The classes that stand in for scikit-learn's: what they are called, how they are pickled, and where they are put."""

from __future__ import annotations

import copyreg
import logging
from functools import cache
from typing import Any

import sklearn
from sklearn import neural_network
from sklearn.neural_network import _multilayer_perceptron

from fastnet.accel import report
from fastnet.errors import MissingPackageError
from fastnet.sklearn import journal
from fastnet.sklearn.drop_in import DropInClassifier, DropInRegressor

__all__ = ["put_back", "replace"]

logger = logging.getLogger("fastnet")

OLDEST, NEWEST = (1, 6), (1, 9)  # releases of scikit-learn that this is tested with

_DROP_INS = {"MLPClassifier": DropInClassifier, "MLPRegressor": DropInRegressor}
_PLACES = (neural_network, _multilayer_perceptron)

_originals: dict[str, type] = {}  # scikit-learn's own classes, while they are replaced


def replace() -> None:
    """Put the accelerated classes in the place of scikit-learn's.

    Raises
    ------
    MissingPackageError
        scikit-learn is older than 1.6.
    """
    _check_version()
    for name, drop_in in _DROP_INS.items():
        if name not in _originals:
            original = getattr(_multilayer_perceptron, name)
            _originals[name] = original
            copyreg.pickle(original, _reduce_by_name)
            _put(name, _accelerated(original, drop_in))
    if report.tell not in journal.listeners:
        journal.listeners.append(report.tell)


def put_back() -> None:
    """Undo :func:`replace`. Accelerated estimators that exist go on working, and are pickled as scikit-learn's."""
    for name, original in _originals.items():
        del copyreg.dispatch_table[original]
        _put(name, original)
    _originals.clear()
    if report.tell in journal.listeners:
        journal.listeners.remove(report.tell)


def _put(name: str, cls: type) -> None:
    for module in _PLACES:
        setattr(module, name, cls)


def _check_version() -> None:
    major, minor = (int(number) for number in sklearn.__version__.split(".")[:2])
    if (major, minor) < OLDEST:
        raise MissingPackageError(
            f"scikit-learn {sklearn.__version__} is too old to be accelerated: pip install 'scikit-learn>=1.6'"
        )
    if (major, minor) > NEWEST:
        logger.info("fastnet.accel is tested with scikit-learn up to 1.9, and this is %s", sklearn.__version__)


@cache
def _accelerated(original: type, drop_in: type) -> Any:
    """`drop_in` under the name of `original`, scikit-learn's class that it derives from."""

    def subclass_hook(cls: type, other: type) -> Any:
        # Estimators of scikit-learn's own class, made before it was replaced, are instances of the name too.
        return True if cls is subclass and original in other.__mro__ else NotImplemented

    namespace: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__subclasshook__": classmethod(subclass_hook),
    }
    subclass = type(drop_in)(original.__name__, (drop_in,), namespace)
    copyreg.pickle(subclass, _reduce_by_name)
    return subclass


def _reduce_by_name(estimator: Any) -> tuple[type, tuple, dict[str, Any]]:
    """Pickle as an instance of the class that now has the name, which pickle insists on."""
    current = getattr(_multilayer_perceptron, type(estimator).__name__)
    return current, (), estimator.__getstate__()
