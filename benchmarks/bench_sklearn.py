"""fastnet's estimators in place of scikit-learn's: the same work by both, in turns, to the same end.

pytest-benchmark's own figures are of whole comparisons; those of each library are in ``extra_info``.
"""

from __future__ import annotations

import numpy as np
import pytest
from drop_in import GROUP
from sklearn_cases import CASES
from sklearn_sides import COMPARABLE_EPOCHS

from fastnet.backends.registry import choose_backend
from fastnet.benchmarking import time_alternately
from fastnet.benchmarking.peers import AbsentError

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # training is cut short on purpose


@pytest.fixture(scope="module")
def kernels(smoke):
    """Compiled code is loaded, as it is in a process that has trained for a second: "auto" may use it or not.

    A smoke run leaves its little work to NumPy, so as to compile nothing.
    """
    if not smoke:
        from fastnet.sklearn import MLPClassifier

        MLPClassifier(backend=choose_backend("auto").backend.name, max_iter=1).fit(np.eye(2), [0, 1])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_drop_in(benchmark, case, scale, smoke, absent, pytestconfig):
    case = case.scaled(scale)
    try:
        sides = case.open(pytestconfig.getoption("data"))
    except AbsentError as reason:
        absent(case.name, reason)
    if not smoke:
        for side in sides.values():
            side.warm_up()
    benchmark.group = GROUP
    times = benchmark.pedantic(time_alternately, args=(list(sides.values()), case.rounds))
    ours, theirs = sides["fastnet"].outcome(), sides["scikit-learn"].outcome()
    n_samples, n_features = sides["fastnet"].x.shape
    benchmark.extra_info.update(
        name=case.name,
        title=case.title,
        dtype=case.dtype,
        n_samples=n_samples,
        n_features=n_features,
        n_iter=ours.n_iter,
        loss=ours.loss_curve[-1],
        backend=ours.backend,
        seconds=dict(zip(sides, times, strict=True)),
    )
    differences = ours.differences(theirs, COMPARABLE_EPOCHS[case.dtype])
    assert not differences, f"{case.name}: fastnet reached {'; '.join(differences)}"
