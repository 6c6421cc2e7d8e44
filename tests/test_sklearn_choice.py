"""Which backend estimators choose for themselves: a matter of sizes alone."""

import subprocess
import sys

import numpy as np
import pytest

from fastnet.errors import SpecError
from fastnet.sklearn import choice
from fastnet.sklearn.choice import Work, choose, choose_for_prediction

TINY = Work((4, 3, 2), 100, 100)
LARGE = Work((784, 100, 10), 42_000, 200, most_passes=200)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a process that has not loaded compiled kernels, on a machine that has some; nobody says what to use."""
    start_in(0.1, monkeypatch)
    monkeypatch.delenv("FASTNET_BACKEND", raising=False)
    monkeypatch.setattr(choice, "_account", choice._Account())


def start_in(seconds, monkeypatch):
    """Kernels take so long to start."""
    monkeypatch.setattr(choice, "seconds_to_start", lambda: seconds)


def test_small_work_is_numpys_and_large_is_not():
    assert choose("auto", "auto", None, TINY).backend.name == "numpy"
    assert choose("auto", "cpu", None, LARGE).backend.name == "numba"
    assert choose_for_prediction("auto", "auto", None, TINY) is None
    assert choose_for_prediction("auto", "cpu", None, Work((784, 100, 10), 10**6, 10**6)).backend.name == "numba"


@pytest.mark.parametrize(("seconds_to_start", "expected"), [(0.0, 0.1), (0.1, 0.1), (0.5, 0.5), (5.0, 1.0)])
def test_many_small_pieces_of_work_are_large_in_the_end(seconds_to_start, expected, monkeypatch):
    """NumPy has them until it has taken as long as kernels would have to start, and no longer."""
    start_in(seconds_to_start, monkeypatch)
    work = Work((30, 100, 1), 1000, 200)
    names = [choose("auto", "cpu", None, work).backend.name for _ in range(3000)]
    n_numpy = names.count("numpy")
    assert names == ["numpy"] * n_numpy + ["numba"] * (3000 - n_numpy)
    assert n_numpy * work.numpy_seconds == pytest.approx(expected, abs=2 * work.numpy_seconds)


def test_once_kernels_are_used_they_are_used_for_all_but_the_smallest():
    assert choose("auto", "cpu", None, LARGE).backend.name == "numba"
    assert choose("auto", "cpu", None, Work((64, 100, 10), 1797, 200, 10)).backend.name == "numba"
    assert choose("auto", "cpu", None, TINY).backend.name == "numpy"


def test_what_is_asked_for_is_what_is_used(monkeypatch):
    assert choose("numba", "auto", None, TINY).backend.name == "numba"
    assert choose("numpy", "auto", None, LARGE).backend.name == "numpy"
    monkeypatch.setenv("FASTNET_BACKEND", "numba")
    assert choose("auto", "auto", None, TINY).reason == "asked for by FASTNET_BACKEND"
    assert choose_for_prediction("auto", "auto", None, TINY).backend.name == "numba"
    with pytest.raises(SpecError, match="unknown device"):
        choose("numpy", "cuda0", None, TINY)


def test_more_work_is_never_reckoned_less():
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = random.integers(1, 500, random.integers(2, 5))
        n_samples, batch_size, passes = (int(n) for n in random.integers(1, [50_000, 500, 300]))
        less = Work(tuple(sizes.tolist()), n_samples, batch_size, passes)
        for more in (
            Work((*sizes[:-1].tolist(), int(sizes[-1]) + 1), n_samples, batch_size, passes),
            Work(less.layer_sizes, n_samples + 1, batch_size, passes),
            Work(less.layer_sizes, n_samples, batch_size, passes + 1),
        ):
            assert more.numpy_seconds >= less.numpy_seconds > 0


def test_small_fits_load_no_kernels():
    code = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from fastnet.sklearn import MLPClassifier
X = np.random.RandomState(0).randn(50, 3)
net = MLPClassifier(max_iter=3).fit(X, X[:, 0] > 0)
net.predict_proba(X)
assert net.backend_ == "numpy" and not {"numba", "llvmlite"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
