# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""`nox` lints and tests; `nox --list` tells what else there is. Arguments after `--` are passed on."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
# A backend that should be there and is not fails the tests; and what is tested is what was installed, not the sources.
ON_THE_CPU = {"FASTNET_REQUIRE": "numpy,numba", "PYTHONSAFEPATH": "1"}


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
    session.run("pytest", *session.posargs, env=ON_THE_CPU)


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
    session.run("pytest", *session.posargs, env=ON_THE_CPU)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build source distribution and wheel, install the wheel, and test it away from the sources."""
    session.install("build", *group("test"))
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        wheel = next(Path(folder).glob("*.whl"))
        session.install("--force-reinstall", "--no-deps", str(wheel))
        session.install(str(wheel))
        session.run("pytest", "tests", *session.posargs, env=ON_THE_CPU)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure fastnet and its peers side by side; writes JSON and Markdown under benchmarks/results.

    Without arguments, which may choose some of the benchmarks, it also measures how times grow with sizes, and puts the
    new figures into the README. MNIST is read from FASTNET_DATA.
    """
    session.install(".", *group("bench"))
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        session.run("pytest", "benchmarks", "--benchmark-enable", f"--benchmark-json={raw}", *session.posargs)
        session.run("python", "benchmarks/report.py", str(raw), "--out", "benchmarks/results")
    if not session.posargs:
        session.run("python", "benchmarks/scaling.py", "--out", "benchmarks/results")
        session.run("python", "benchmarks/chart.py")
        session.run("python", "benchmarks/readme_table.py")


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """On a machine with a GPU: all tests, none skipped for want of a backend, then parity and speed."""
    session.install(f".[{os.environ.get('FASTNET_CUDA', 'cuda13')}]", *group("test"))
    session.run("pytest", env={"FASTNET_REQUIRE": "numpy,numba,cupy"})
    session.run("python", "benchmarks/gpu.py", "--out", "benchmarks/results", *session.posargs)
