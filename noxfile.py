# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""`nox` lints and tests; `nox --list` tells what else there is. Arguments after `--` are passed on."""

from __future__ import annotations

import os
import re
import tempfile
from itertools import product
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
# A backend that should be there and is not fails the tests; and what is tested is what was installed, not the sources.
ON_THE_CPU = {"FASTNET_REQUIRE": "numpy,numba", "PYTHONSAFEPATH": "1"}
# Tests differ in length by a factor of a thousand, and those that train on every core gain nothing from many workers.
SIDE_BY_SIDE = ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests."""
    session.install(".", *group("test"))
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs, env=ON_THE_CPU)


@nox.session(default=False)
def typecheck(session: nox.Session) -> None:
    """Check types."""
    session.install(".", *group("typecheck"), *group("test"))
    session.run("mypy", *session.posargs)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest release of every dependency that pyproject.toml admits."""
    pins = [re.sub(r">=(\S+)", r"==\1", requirement) for requirement in PROJECT["project"]["dependencies"]]
    session.install(".", *pins, *group("test"))
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs, env=ON_THE_CPU)


@nox.session(default=False)
def sklearn_suite(session: nox.Session) -> None:
    """Run scikit-learn's own tests of its networks on fastnet's classes; FASTNET_SKLEARN=1.6.1 chooses a version."""
    version = os.environ.get("FASTNET_SKLEARN")
    session.install("--upgrade", ".", f"scikit-learn=={version}" if version else "scikit-learn", *group("test"))
    suite = Path("tests", "sklearn_suite").resolve()
    environment = {"PYTHONPATH": str(suite.parent), "PYTHONSAFEPATH": "1", "SCIPY_ARRAY_API": "1"}
    failed = []
    with tempfile.TemporaryDirectory() as empty_folder, session.chdir(empty_folder):
        for classes, backend in product(["fastnet.sklearn", "fastnet.accel"], ["numpy", "numba"]):
            what = [f"--mlp-classes={classes}", f"--mlp-backend={backend}"]
            arguments = ["-c", str(suite / "pytest.ini"), "--rootdir=.", "--pyargs", "sklearn", *what, *session.posargs]
            try:
                session.run("pytest", *arguments, env=environment)
            except nox.command.CommandFailed:
                failed.append(f"{classes} on {backend}")
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build source distribution and wheel, install the wheel, and test it away from the sources."""
    session.install("build", *group("test"))
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        wheel = next(Path(folder).glob("*.whl"))
        session.install("--force-reinstall", "--no-deps", str(wheel))
        session.install(str(wheel))
        session.run("pytest", "tests", *SIDE_BY_SIDE, *session.posargs, env=ON_THE_CPU)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure fastnet and its peers side by side; writes JSON and Markdown under benchmarks/results.

    Without arguments, which may choose some of the benchmarks (`-- benchmarks/bench_sklearn.py`), it also measures what
    limits a step and how times grow with sizes, and puts the new figures into the README. MNIST is read from
    FASTNET_DATA.
    """
    session.install(".", *group("bench"))
    if session.posargs:
        measure(session, "some", *session.posargs)
        return
    # The estimators are measured in a process that has not loaded any other library, as those of their users.
    estimators = "benchmarks/bench_sklearn.py"
    measure(session, "drop-in", estimators)
    measure(session, "cpu", "benchmarks", f"--ignore={estimators}")
    session.run("python", "benchmarks/limits.py", "--out", "benchmarks/results")
    session.run("python", "benchmarks/scaling.py", "--out", "benchmarks/results")
    session.run("python", "benchmarks/chart.py")
    session.run("python", "benchmarks/readme_table.py")


def measure(session: nox.Session, name: str, *arguments: str) -> None:
    """Run benchmarks, and report on them under a name."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        session.run("pytest", "--benchmark-enable", f"--benchmark-json={raw}", *arguments)
        session.run("python", "benchmarks/report.py", str(raw), "--out", "benchmarks/results", "--name", name)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """On a machine with a GPU: all tests, none skipped for want of a backend, then parity and speed."""
    session.install(f".[{os.environ.get('FASTNET_CUDA', 'cuda13')}]", *group("test"))
    session.run("pytest", env={"FASTNET_REQUIRE": "numpy,numba,cupy"})
    session.run("python", "benchmarks/gpu.py", "--out", "benchmarks/results", *session.posargs)
