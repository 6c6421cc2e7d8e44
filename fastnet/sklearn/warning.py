"""Warnings that come from scikit-learn's module, whose code fastnet's takes the place of.

So ``warnings.filterwarnings("ignore", module="sklearn")`` and the like still match them.
"""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.neural_network import _multilayer_perceptron
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron

__all__ = ["check_optimize_result", "warn"]

_NAMESPACE = vars(_multilayer_perceptron)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as if scikit-learn's training by epochs did."""
    code = BaseMultilayerPerceptron._fit_stochastic.__code__
    warnings.warn_explicit(
        message,
        category,
        code.co_filename,
        code.co_firstlineno,
        module=_multilayer_perceptron.__name__,
        registry=_NAMESPACE.setdefault("__warningregistry__", {}),  # of what has been shown, by Python's name for it
        module_globals=_NAMESPACE,
    )


def check_optimize_result(result: Any, max_iter: int) -> int:
    """Return how many iterations L-BFGS made, and warn, as scikit-learn words it, where it has not converged.

    Parameters
    ----------
    result : scipy.optimize.OptimizeResult
    max_iter : int
        Iterations that were allowed.
    """
    # scikit-learn's function warns in the name of the module that calls it, so it is called from there. To record its
    # warning instead would, for that moment, take the warnings of all other threads as well.
    code = BaseMultilayerPerceptron._fit_lbfgs.__code__
    call = compile("_check_optimize_result('lbfgs', result, max_iter)", code.co_filename, "eval")
    call = call.replace(co_firstlineno=code.co_firstlineno)
    return int(eval(call, _NAMESPACE, {"result": result, "max_iter": max_iter}))
