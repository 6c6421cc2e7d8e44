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
    """As in a process that has not loaded compiled kernels, and was not told what to use."""
    monkeypatch.delitem(sys.modules, "fastnet.backends.numba_backend.plan", raising=False)
    monkeypatch.delenv("FASTNET_BACKEND", raising=False)
    monkeypatch.setattr(choice, "_account", choice._Account())


def test_small_work_is_numpys_and_large_is_not():
    assert choose("auto", "auto", None, TINY).backend.name == "numpy"
    assert choose("auto", "cpu", None, LARGE).backend.name == "numba"
    assert choose_for_prediction("auto", "auto", None, TINY) is None
    assert choose_for_prediction("auto", "cpu", None, Work((784, 100, 10), 10**6, 10**6)).backend.name == "numba"


def test_many_small_pieces_of_work_are_large_in_the_end():
    """NumPy has them until it has taken as long as loading kernels would have, and no longer."""
    work = Work((30, 100, 1), 1000, 200)
    names = [choose("auto", "cpu", None, work).backend.name for _ in range(3000)]
    n_numpy = names.count("numpy")
    assert names == ["numpy"] * n_numpy + ["numba"] * (3000 - n_numpy)
    assert n_numpy * work.numpy_seconds == pytest.approx(1.0, abs=2 * work.numpy_seconds)


def test_loaded_kernels_are_used_for_all_but_the_smallest(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastnet.backends.numba_backend.plan", object())
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


def test_small_fits_load_no_compiler():
    code = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from fastnet.sklearn import MLPClassifier
X = np.random.RandomState(0).randn(50, 3)
net = MLPClassifier(max_iter=3).fit(X, X[:, 0] > 0)
net.predict_proba(X)
assert net.backend_ == "numpy" and "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
