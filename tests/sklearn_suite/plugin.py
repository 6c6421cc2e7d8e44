"""pytest plugin: scikit-learn's tests of its multilayer perceptrons, run on fastnet's.

fastnet's classes are put in the place of scikit-learn's before any test is imported. Of all tests, those are run that
belong to ``sklearn.neural_network`` or name one of the two classes. A run fails, not only by the tests that fail, if

- a module has got scikit-learn's own classes,
- a test is listed as failing and passes, or does not exist,
- a fit of a test that is not listed ran elsewhere than on the backend asked for: by scikit-learn's own code, say,
- there was no fit at all.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import pytest

from fastnet.errors import FastnetError
from sklearn_suite.fits import Fits
from sklearn_suite.known_failures import KnownFailure, read_failures, stale
from sklearn_suite.replacement import CLASSES, NotReplacedError, Replacement

__all__ = ["Suite"]

NAMES = re.compile("MLPClassifier|MLPRegressor")
OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options that choose what is tested."""
    group = parser.getgroup("fastnet")
    group.addoption(
        "--mlp-classes",
        choices=sorted(CLASSES),
        default="fastnet.sklearn",
        help="whose classes stand in for scikit-learn's (default: %(default)s)",
    )
    group.addoption("--mlp-backend", default="numpy", help="where all fits shall run (default: %(default)s)")
    group.addoption(
        "--mlp-known-failures",
        type=Path,
        default=Path(__file__).with_name("known_failures.toml"),
        metavar="FILE",
        help="list of tests that fail (default: the plugin's own)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Replace the classes before scikit-learn's conftest, the first of its modules, is imported."""
    options = early_config.known_args_namespace
    try:
        replacement = Replacement.make(options.mlp_classes)
        suite = _make_suite(options.mlp_classes, options.mlp_backend, options.mlp_known_failures, replacement)
    except (FastnetError, NotReplacedError, OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    early_config.pluginmanager.register(suite)


def _make_suite(classes: str, backend: str, list_of_failures: Path, replacement: Replacement) -> Suite:
    import sklearn

    from fastnet.backends.registry import choose_backend
    from fastnet.sklearn import journal

    fits = Fits(choose_backend(backend).backend.name)
    os.environ["FASTNET_BACKEND"] = fits.backend
    journal.listeners.append(fits.note)
    title = f"{classes} on {fits.backend}, scikit-learn {sklearn.__version__}"
    return Suite(title, replacement, read_failures(list_of_failures, sklearn.__version__), fits)


class Suite:
    """The hooks of a run.

    Parameters
    ----------
    title : str
        What is tested on what.
    replacement : Replacement
    failures : dict of str to KnownFailure
        Tests that fail.
    fits : Fits
    """

    def __init__(self, title: str, replacement: Replacement, failures: dict[str, KnownFailure], fits: Fits) -> None:
        self._title = title
        self._replacement = replacement
        self._failures = failures
        self._fits = fits
        self._problem = ""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Pass over files that name neither class, as most do: importing them takes long."""
        is_elsewhere = collection_path.match("test_*.py") and "neural_network" not in collection_path.parts
        return True if is_elsewhere and not NAMES.search(collection_path.read_text(encoding="utf-8")) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Mark the tests that are listed, and leave out those that are not about the estimators."""
        whole_modules = not any("::" in argument for argument in config.args)
        unknown = stale(self._failures, {identify(item) for item in items}) if whole_modules else []
        if unknown:
            raise pytest.UsageError(f"listed as failing, but there is no such test: {', '.join(unknown)}")
        for item in items:
            if identify(item) in self._failures:
                reason = self._failures[identify(item)].reason
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True), append=False)
        ours, others = [], []
        for item in items:
            (ours if is_about_the_estimators(item) else others).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = ours

    def pytest_collection_finish(self) -> None:
        """Make sure of the classes that the test modules have."""
        try:
            self._replacement.check()
        except NotReplacedError as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Let a test fail whose fits ran elsewhere."""
        try:
            result = yield
        finally:
            elsewhere = self._fits.take_elsewhere()
        if elsewhere:
            pytest.fail(elsewhere, pytrace=False)
        return result

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Let a run fail in which nothing ran where it should."""
        if not session.config.option.collectonly and not self._fits.counts[self._fits.backend]:
            self._problem = f"no fit ran on {self._fits.backend}"
            if exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print one line that says what was tested, and with what result."""
        counts = {outcome: len(terminalreporter.stats.get(outcome, ())) for outcome in OUTCOMES}
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        known = f"{len(self._failures)} known failures listed"
        terminalreporter.write_line(f"{self._title}: {outcomes}; {known}; {self._fits}")
        if self._problem:
            terminalreporter.write_line(f"FAILED: {self._problem}", red=True)


def identify(item: pytest.Item) -> str:
    """Name of a test that does not depend on where scikit-learn is installed: "package.module::test[parameters]"."""
    module = item.getparent(pytest.Module)
    name = item.nodeid.partition("::")[2]
    return f"{module.obj.__name__}::{name}" if module is not None else name


def is_about_the_estimators(item: pytest.Item) -> bool:
    """Whether a test belongs to scikit-learn's networks or names an estimator, in its parameters or its code."""
    if identify(item).startswith("sklearn.neural_network."):
        return True
    return bool(NAMES.search(item.name) or (isinstance(item, pytest.Function) and _names_an_estimator(item.function)))


@cache  # for all parameters of a test
def _names_an_estimator(function: Callable[..., object]) -> bool:
    return bool(NAMES.search(inspect.getsource(function)))
