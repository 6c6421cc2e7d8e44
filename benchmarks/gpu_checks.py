"""Whether the CuPy backend is right and repeatable, by the path that it would choose and kept to each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
from gpu_apart import describe
from numpy.typing import NDArray

from fastnet import testing
from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.array_plan import ArrayPlan
from fastnet.backends.cupy_backend import CupyBackend
from fastnet.backends.interface import Backend
from fastnet.backends.registry import create_backend
from fastnet.benchmarking import BackendTrial, n_usable_cpus
from fastnet.data import Dataset
from fastnet.errors import UnsupportedSpecError
from fastnet.parameters import Parameters
from fastnet.spec import TrainingSpec
from fastnet.testing import Problem, oracle
from fastnet.workloads import LoadedWorkload

DEFAULT = "default"  # stands for whichever path the backend chooses


def path_names() -> list[str]:
    """Names of all paths, the generic one last; CuPy must be there."""
    from fastnet.backends.cupy_backend import paths

    return [*map(paths.name_of, paths.PATHS), paths.name_of(None)]


class OnePath(CupyBackend):
    """Trains what its path can train, be that the slower choice or not, and refuses the rest.

    Parameters
    ----------
    device : str
    path : str
        One of :func:`path_names`.
    """

    def __init__(self, device: str, path: str) -> None:
        super().__init__(device)
        self.path = path

    def plan_training(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset) -> ArrayPlan:
        """See `fastnet.backends.interface.Backend.plan_training`.

        Raises
        ------
        UnsupportedSpecError
            The path cannot train this; the message says why.
        """
        from fastnet.backends.cupy_backend import paths
        from fastnet.backends.cupy_backend.device import DeviceProperties

        found: list[ModuleType] = [path for path in paths.PATHS if paths.name_of(path) == self.path]
        for path in found:
            # A path that tells apart what it cannot do from what it should not says so by another function.
            stands_against = getattr(path, "cannot_train", path.obstacle)
            reason = stands_against(spec, dataset, DeviceProperties.of(self._device_index))
            if reason is not None:
                raise UnsupportedSpecError(f"not by path {self.path}: {reason}")
        ready = tuple(
            SimpleNamespace(__name__=path.__name__, obstacle=lambda *_: None, open_engine=path.open_engine)
            for path in found
        )
        with patch.object(paths, "PATHS", ready):
            return super().plan_training(spec, parameters, dataset)


def backend_of(path: str, device: str) -> Backend:
    """The backend as it is for `DEFAULT`, or kept to one of :func:`path_names`."""
    return create_backend("cupy", device) if path == DEFAULT else OnePath(device, path)


@dataclass
class Parity:
    """What became of the checks of the conformance kit: how many passed, and what the others say, by name."""

    n_passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    not_taken: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, outcome: str, reason: str) -> None:
        """Take down a check that has "passed" or "failed", or is "not taken"."""
        if outcome == "passed":
            self.n_passed += 1
        else:
            (self.failed if outcome == "failed" else self.not_taken)[name] = reason

    def __str__(self) -> str:
        n_checks = self.n_passed + len(self.failed)
        others = f", {len(self.not_taken)} are not for it" if self.not_taken else ""
        return f"{self.n_passed} of {n_checks} checks passed{others}"


def check_parity(path: str, device: str, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Name, outcome and reason, as `Parity.add` has them, of checks of the conformance kit.

    It ends after an error that is no mere difference, as the device may not be fit for use after it.
    """
    checks, backend = testing.conformance_checks(), backend_of(path, device)
    for name in names:
        try:
            checks[name](backend)
        except UnsupportedSpecError as error:
            yield name, "not taken", str(error)
        except AssertionError as error:
            yield name, "failed", describe(error)
        except Exception as error:
            yield name, "failed", describe(error)
            return
        else:
            yield name, "passed", ""


# Of a whole gradient, relative to the reference's in the 2-norm.
LARGEST_GRADIENT_ERROR = 1e-5


def exact_gradient(loaded: LoadedWorkload) -> NDArray[np.float64]:
    """The gradient at a workload's start, in the canonical layout, by the reference in float64."""
    problem = oracle(Problem(loaded.spec, loaded.start, loaded.dataset))
    return problem.plan(NumpyBackend()).loss_and_gradients()[1].flat


def gradient_error(backend: Backend, loaded: LoadedWorkload, exact: NDArray[np.float64]) -> float | None:
    """Of the gradient at a workload's start; NaN where there is none, None where the backend makes none."""
    try:
        with closing(backend.plan_training(loaded.spec, loaded.start, loaded.dataset)) as plan:
            _, gradient = plan.loss_and_gradients()
    except UnsupportedSpecError:
        return None
    except Exception:  # which the check that follows tells
        return float("nan")
    return float(np.linalg.norm(gradient.flat - exact) / np.linalg.norm(exact))


EQUAL = "equal bit for bit"


def check_repeatable(backend: Backend, loaded: LoadedWorkload) -> str | None:
    """How the parameters differ that two plans reach, run one after the other; None if the backend makes none."""
    reached = []
    for _ in range(2):
        try:
            with closing(BackendTrial(loaded, backend, n_usable_cpus())) as trial:
                trial.run()
                reached.append(trial.parameters().flat)
        except UnsupportedSpecError:
            return None
        except Exception as error:
            return describe(error)
    return EQUAL if np.array_equal(*reached) else f"not equal: {np.count_nonzero(np.not_equal(*reached))} parameters"
