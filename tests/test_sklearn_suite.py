"""The plugin that runs scikit-learn's own tests on fastnet's estimators: it lets nothing through."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn
from sklearn_suite.known_failures import read_failures, stale

TESTS = Path(__file__).parent

FITS = """
from sklearn.neural_network import MLPClassifier, MLPRegressor

X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]

class Own(MLPRegressor):
    def _backprop(self, *args):
        return super()._backprop(*args)

def test_fits():
    MLPClassifier(max_iter=1, solver="sgd").partial_fit(X, y, classes=[0, 1])

def test_falls_back():
    assert MLPClassifier
    Own(max_iter=1, solver="sgd").partial_fit(X, y)

def test_fails():
    assert MLPClassifier().get_params() == {}
"""
NOTHING_ABOUT_THEM = "def test_of_something_else():\n    assert False\n"
KNOWN_FAILURES = """
[[test]]
id = "test_made_up::test_fails"
reason = "what it relies on"

[[test]]
id = "test_made_up::test_falls_back"
reason = "overrides what is not called"
"""


@pytest.fixture
def run_suite(tmp_path):
    """Run the suite on made-up files in place of scikit-learn's tests."""

    def run(test_module, known_failures="", classes="fastnet.sklearn", options=(), **files):
        files |= {"test_made_up": test_module}
        for name, content in files.items():
            (tmp_path / f"{name}.py").write_text(content)
        (tmp_path / "known.toml").write_text(known_failures)
        command = [
            *(sys.executable, "-m", "pytest", *options, "-c", str(TESTS / "sklearn_suite" / "pytest.ini"), "-rfEs"),
            *(f"--rootdir={tmp_path}", f"--mlp-classes={classes}", "--mlp-known-failures=known.toml", str(tmp_path)),
        ]
        path = os.pathsep.join([str(TESTS), *sys.path, str(tmp_path)])
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("classes", ["fastnet.sklearn", "fastnet.accel"])
def test_runs_what_is_about_the_estimators_and_tells_what_came_of_it(run_suite, classes):
    finished = run_suite(FITS + NOTHING_ABOUT_THEM, KNOWN_FAILURES, classes, test_other="raise ImportError")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    outcomes = "1 passed, 0 failed, 0 error, 0 skipped, 2 xfailed, 0 xpassed; 2 known failures listed"
    title = f"{classes} on numpy, scikit-learn {sklearn.__version__}"
    assert f"{title}: {outcomes}; 1 fits on numpy, 1 fits on scikit-learn\n" in finished.stdout


def test_fails_by_failures_fallbacks_and_failures_that_are_none(run_suite):
    entry = '[[test]]\nid = "test_made_up::test_fits"\nreason = "none: it passes"\n'
    finished = run_suite(FITS, entry)
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED
    assert "FAILED test_made_up.py::test_fails - AssertionError" in finished.stdout
    assert "FAILED test_made_up.py::test_falls_back" in finished.stdout
    assert "not on numpy: Own.partial_fit: fell back to scikit-learn's own code" in finished.stdout
    assert "FAILED test_made_up.py::test_fits - [XPASS(strict)] none: it passes" in finished.stdout


def test_refuses_an_entry_without_a_test(run_suite):
    finished = run_suite(FITS, KNOWN_FAILURES.replace("test_fails", "test_that_was_renamed"))
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert "there is no such test: test_made_up::test_that_was_renamed" in finished.stderr


def test_refuses_modules_that_were_imported_before(run_suite):
    early = "from sklearn.neural_network import MLPRegressor as Early"
    finished = run_suite(FITS, KNOWN_FAILURES, options=["-p", "early"], early=early)
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert "scikit-learn's own classes are in early" in finished.stderr


def test_refuses_tests_that_got_the_classes_in_another_way(run_suite):
    finished = run_suite("import fastnet.accel\nfastnet.accel.uninstall()\n" + FITS, classes="fastnet.accel")
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search("scikit-learn's own classes are in .*test_made_up", finished.stderr)


def test_fails_where_nothing_is_fitted(run_suite):
    finished = run_suite(
        "from sklearn.neural_network import MLPClassifier\ndef test_it():\n    assert MLPClassifier()\n"
    )
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed, 0 failed" in finished.stdout
    assert "FAILED: no fit ran on numpy" in finished.stdout


@pytest.mark.parametrize(
    ("version", "is_listed"), [("1.6.1", False), ("1.7.0", True), ("1.8.dev0", True), ("1.9", False)]
)
def test_an_entry_holds_for_its_versions(tmp_path, version, is_listed):
    path = tmp_path / "known.toml"
    path.write_text('[[test]]\nid = "module::test"\nreason = "changed in between"\nscikit-learn = ">=1.7,<1.9"\n')
    failures = read_failures(path, version)
    assert [failure.reason for failure in failures.values()] == ["changed in between"] * is_listed
    assert stale(failures, {"module::other"}) == ["module::test"] * is_listed
    assert stale(failures, {"module::test", "module::other"}) == []
    assert stale(failures, {"other::test"}) == [], "none of its module's tests was looked for"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[test", "at end of document"),
        ("[tests]", "nothing but"),
        ('[[test]]\nid = "a::b"', "reason must be given"),
        ('[[test]]\nreason = "c"', "id must be given"),
        ('[[test]]\nid = "a"\nreason = "c"', "id must be like"),
        ('[[test]]\nid = "a::b"\nreason = "c"\nsklearn = "<2"', "'sklearn' is none of id, reason, scikit-learn"),
        ('[[test]]\nid = "a::b"\nreason = "c"\nscikit-learn = "two"', "scikit-learn must be like"),
        ('[[test]]\nid = "a::b"\nreason = "c"\nscikit-learn = 2', "scikit-learn must be like"),
        ('[[test]]\nid = "a::b"\nreason = "c"\n' * 2, "number 2: a::b is listed before"),
    ],
)
def test_a_list_with_a_mistake_says_where_it_is(tmp_path, content, message):
    path = tmp_path / "known.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_failures(path, sklearn.__version__)
    assert str(caught.value).startswith(str(path))


def test_the_list_that_is_used_has_no_mistake():
    read_failures(TESTS / "sklearn_suite" / "known_failures.toml", sklearn.__version__)
