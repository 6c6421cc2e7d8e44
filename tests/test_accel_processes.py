"""The accelerator in processes of its own: Python's start, scripts, modules, workers, and pickles between them."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import load_iris

import fastnet
from fastnet import accel

ROOT = Path(__file__).parents[1]
AT_START = (ROOT / "fastnet_accel.pth").read_text()
SCRIPT = ROOT / "tests" / "scripts" / "plain_scikit_learn.py"

# Prints all that a program can see of how it was started, and then does as it is told.
ABOUT_ITSELF = """
import json, os, sys, threading
print(json.dumps([sys.argv, sys.path[0], __name__, __file__, __package__, getattr(__spec__, "name", None)]))
class Here:
    pass
import pickle
assert type(pickle.loads(pickle.dumps(Here()))) is Here, "__main__ must be importable"
def fail():
    raise LookupError("on purpose")
match sys.argv[1:]:
    case ["exit", status]: sys.exit(int(status))
    case ["fail"]: fail()
    case ["import"]: import there_is_no_such_module
"""


AS_OURS = ["-v", "--strict", "-m", "--", "--help"]  # a program's own arguments, though they look like the accelerator's


@pytest.fixture
def python(tmp_path):
    """Run Python in a process, and look at its exit status; `fastnet_accel.pth` is in force as in site-packages."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AT_START)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FASTNET_", "PYTHON"))}
    clean["PYTHONPATH"] = os.pathsep.join([str(site), str(Path(fastnet.__file__).parents[1])])

    def run(*arguments, status=0, **environment):
        command = [sys.executable, *(str(argument) for argument in arguments)]
        options = {"env": clean | environment, "cwd": tmp_path, "capture_output": True, "text": True}
        finished = subprocess.run(command, **options, check=False)
        assert finished.returncode == status, finished.stderr
        return finished

    return run


def accelerated(python, *arguments, **options):
    return python("-m", "fastnet.accel", *arguments, **options)


# Python's start


def test_start_does_nothing_unless_asked_to(python):
    look = """
import os, sys
before = set(sys.modules), list(sys.meta_path)
for value in (None, "", "0"):
    if value is not None:
        os.environ["FASTNET_ACCEL"] = value
    exec(sys.argv[1])
assert (set(sys.modules), sys.meta_path) == before, set(sys.modules) - before[0]
"""
    python("-S", "-c", look, AT_START)
    assert AT_START.startswith("import os;"), "or Python would take it for the name of a folder"
    assert AT_START.count("\n") == 1


def test_start_goes_on_where_nothing_of_fastnet_is_left(python):
    finished = python("-I", "-S", "-c", "import sys; exec(sys.argv[1]); print('on')", AT_START, FASTNET_ACCEL="1")
    assert (finished.stdout, finished.stderr) == ("on\n", "")


def test_scikit_learn_goes_on_where_fastnet_is_broken(python):
    script = """
import sys
sys.modules["fastnet"] = None  # its import fails
from sklearn.neural_network import MLPClassifier
print(MLPClassifier.__mro__[1].__name__)
"""
    finished = python("-c", script, FASTNET_ACCEL="1")
    assert finished.stdout == "ClassifierMixin\n"
    assert "nothing is accelerated" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "from sklearn.neural_network._multilayer_perceptron import MLPClassifier",
        "import fastnet.sklearn; from sklearn.neural_network import MLPClassifier",
        """import fastnet.accel
assert fastnet.accel.is_installed()
fastnet.accel.install()
from sklearn.neural_network import MLPClassifier""",
    ],
)
def test_the_environment_accelerates_at_the_first_import(python, statement):
    script = f"""
import sys
assert not {{"fastnet", "numpy", "sklearn"}} & set(sys.modules)
import sklearn.linear_model
assert "fastnet" not in sys.modules
{statement}
from sklearn.neural_network import _multilayer_perceptron
assert MLPClassifier is _multilayer_perceptron.MLPClassifier
print(*(cls.__module__ for cls in MLPClassifier.__mro__[:2]))
import fastnet.sklearn, sklearn.neural_network as module
print(fastnet.sklearn.MLPClassifier in MLPClassifier.__mro__ or MLPClassifier in fastnet.sklearn.MLPClassifier.__mro__)
print(type(module.__loader__).__name__, module.__spec__.loader is module.__loader__)
"""
    finished = python("-c", script, FASTNET_ACCEL="1")
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == [
        "sklearn.neural_network._multilayer_perceptron fastnet.sklearn.drop_in",
        "False",
        "SourceFileLoader True",
    ]


# Scripts and modules


@pytest.mark.parametrize(
    ("as_module", "environment", "cases"),
    [
        (False, {}, [(AS_OURS, 0), (["exit", "3"], 3), (["fail"], 1)]),
        (False, {"PYTHONSAFEPATH": "1"}, [(AS_OURS, 0)]),
        (True, {}, [(AS_OURS, 0), (["import"], 1)]),
    ],
    ids=["script", "script on a safe path", "module"],
)
def test_a_program_is_started_as_python_itself_would(python, tmp_path, as_module, environment, cases):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "about_itself.py").write_text(ABOUT_ITSELF)
    (tmp_path / "link.py").symlink_to(folder / "about_itself.py")
    program = ["-m", "folder.about_itself"] if as_module else ["link.py"]
    for arguments, status in cases:
        plain = python(*program, *arguments, status=status, **environment)
        ours = accelerated(python, *program, *arguments, status=status, **environment)
        assert ours.stdout == plain.stdout
        if as_module:  # of which plain Python shows two frames of its own
            assert ours.stderr.splitlines()[-4:] == plain.stderr.splitlines()[-4:]
            assert "runpy" not in ours.stderr
        else:
            assert ours.stderr == plain.stderr


def test_a_script_with_a_syntax_error_is_told_as_python_itself_would(python, tmp_path):
    (tmp_path / "bad.py").write_text("print(1\n")
    assert accelerated(python, "bad.py", status=1).stderr == python("bad.py", status=1).stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere.py"], 2, "can't open 'nowhere.py': No such file"),
        (["."], 2, "can't open '.': Is a directory"),
        (["-m", "no_such_module"], 1, "No module named no_such_module"),
        (["-m", "json"], 1, "'json' is a package and cannot be directly executed"),
        (["--no-such-option", "x.py"], 2, "No such option"),
        ([], 2, "Missing argument 'SCRIPT'"),
    ],
)
def test_what_cannot_be_run_is_told_without_a_traceback(python, arguments, status, said):
    finished = accelerated(python, *arguments, status=status)
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


def test_strict_makes_a_fallback_an_error(python, tmp_path):
    (tmp_path / "overriding.py").write_text(
        """
from sklearn.neural_network import MLPRegressor
class Overriding(MLPRegressor):
    def _backprop(self, *arguments):
        return super()._backprop(*arguments)
for _ in range(2):
    Overriding(max_iter=2, tol=0.0, solver="lbfgs").fit([[0.0], [1.0]], [0.0, 1.0])
print("trained")
"""
    )
    environment = {"PYTHONWARNINGS": "ignore"}
    relaxed = accelerated(python, "overriding.py", **environment)
    assert relaxed.stdout == "trained\n"
    assert relaxed.stderr.count("fell back") == len(relaxed.stderr.splitlines()) == 1
    strict = accelerated(python, "--strict", "overriding.py", status=1, **environment)
    assert "UnsupportedSpecError: Overriding.fit cannot be accelerated" in strict.stderr
    assert strict.stdout == ""


# A whole script, with workers


def test_a_plain_script_prints_the_same_scores_and_its_workers_are_counted(python, tmp_path):
    """The tolerance is 1e-6 on scores around 1: fewer than one of some hundred samples judged differently."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    plain = python(SCRIPT, TMPDIR=str(temporary))
    ours = accelerated(python, "-v", SCRIPT, TMPDIR=str(temporary))
    scores = [[line.rsplit(" ", 1) for line in each.stdout.splitlines()] for each in (plain, ours)]
    assert len(scores[0]) == 6
    assert [name for name, _ in scores[1]] == [name for name, _ in scores[0]]
    for (_, ours_scored), (_, plain_scored) in zip(scores[1], scores[0], strict=True):
        assert float(ours_scored) == pytest.approx(float(plain_scored), abs=1e-6)

    entries = [line for line in ours.stderr.splitlines() if line.startswith("[fastnet.accel] MLP")]
    rows = re.findall(r"^(MLP\w+\.fit) +(\w+) +(\d+) +([\d.]+)$", ours.stderr, re.MULTILINE)
    calls = {method: sum(int(row[2]) for row in rows if row[0] == method) for method, *_ in rows}
    assert calls == {"MLPClassifier.fit": 2 * 3 + 1 + 3, "MLPRegressor.fit": 2}
    assert len(entries) == 12
    assert sum(float(row[3]) for row in rows) > 0
    assert int(re.search(r"over (\d+) processes", ours.stderr)[1]) >= 2
    assert not list(temporary.glob("fastnet-accel-*")), "the report is removed"


def test_verbose_says_so_where_nothing_was_trained(python, tmp_path):
    (tmp_path / "idle.py").write_text("print('nothing to do')")
    finished = accelerated(python, "-v", "idle.py")
    assert finished.stdout == "nothing to do\n"
    assert "no MLPClassifier or MLPRegressor was trained" in finished.stderr


# Pickles between processes


LOAD_AND_GO_ON = """
import json, pickle, sys, warnings
from pathlib import Path
from sklearn.datasets import load_iris
sys.modules["fastnet"] = None  # its import fails
warnings.simplefilter("error")
path = Path(sys.argv[1])
estimator = pickle.loads(path.read_bytes())
X, y = load_iris(return_X_y=True)
print(json.dumps([type(estimator).__mro__[1].__name__, estimator.predict_proba(X).tolist()]))
path.write_bytes(pickle.dumps(estimator.partial_fit(X, y)))
"""


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_pickle_needs_no_fastnet_and_comes_back(python, tmp_path):
    X, y = load_iris(return_X_y=True)
    path = tmp_path / "estimator.pickle"
    accel.install()
    try:
        estimator = neural_network.MLPClassifier((4,), max_iter=5, random_state=0).fit(X, y)
        path.write_bytes(pickle.dumps(estimator))
        base, probabilities = json.loads(python("-c", LOAD_AND_GO_ON, path).stdout)
        assert base == "ClassifierMixin"
        np.testing.assert_allclose(probabilities, estimator.predict_proba(X), rtol=1e-9)
        came_back = pickle.loads(path.read_bytes())
        assert type(came_back) is type(estimator)
        for theirs, ours in zip(came_back.coefs_, estimator.partial_fit(X, y).coefs_, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-9)
    finally:
        accel.uninstall()
