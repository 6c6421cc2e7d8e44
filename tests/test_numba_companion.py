"""The process that compiles along: when it starts, what it is told, and that it compiles what is needed."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from fastnet.backends.numba_backend import companion, team
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction
from fastnet.backends.numba_backend.kernels.needed import needed_functions
from fastnet.backends.numba_backend.kinds import NetworkKind

KIND = NetworkKind(
    dtype=np.dtype("float32"),
    output="softmax",
    across=False,
    is_single=False,
    clears=False,
    copies=False,
    packed=(np.dtype("uint8"), np.dtype("uint16")),
    training=None,
)

# Stands in for the companion: writes what it is told where the test can read it.
LISTEN = "import pickle, sys; open({!r}, 'wb').write(sys.stdin.buffer.read())"


@pytest.fixture(autouse=True)
def _first_of_the_process(monkeypatch):
    companion.start_where_nothing_is_compiled.cache_clear()
    monkeypatch.setattr(companion, "_waiting", [])
    yield
    companion.start_where_nothing_is_compiled.cache_clear()


@pytest.fixture
def _nothing_on_disk(monkeypatch):
    monkeypatch.setattr(companion, "is_anything_kept", lambda: False)


@pytest.mark.usefixtures("_nothing_on_disk")
def test_companion_is_told_the_kind(monkeypatch, tmp_path):
    told = tmp_path / "told"
    monkeypatch.setattr(companion, "_COMMAND", LISTEN.format(str(told)))
    companion.start_where_nothing_is_compiled()
    companion.tell(KIND)
    companion.tell(replace(KIND, output="sigmoid"))  # there is one companion, and it is busy
    deadline = time.monotonic() + 30
    while not (told.exists() and told.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pickle.loads(told.read_bytes()) == KIND


@pytest.mark.usefixtures("_nothing_on_disk")
def test_one_companion_per_process(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: started.append(arguments))
    companion.start_where_nothing_is_compiled()
    companion.start_where_nothing_is_compiled()
    assert len(started) == 1


def never(*arguments, **options):
    pytest.fail("a companion was started")


@pytest.mark.parametrize("why_not", ["compiled code", "one CPU", "no interpreter", "frozen"])
def test_no_companion_where_it_would_be_of_no_use(monkeypatch, why_not):
    monkeypatch.setattr(companion, "is_anything_kept", lambda: why_not == "compiled code")
    monkeypatch.setattr(companion.os, "cpu_count", lambda: 1 if why_not == "one CPU" else 2)
    monkeypatch.setattr(sys, "executable", "" if why_not == "no interpreter" else sys.executable)
    monkeypatch.setattr(sys, "frozen", why_not == "frozen", raising=False)
    monkeypatch.setattr(subprocess, "Popen", never)
    companion.start_where_nothing_is_compiled()
    companion.tell(KIND)


@pytest.mark.usefixtures("_nothing_on_disk")
def test_process_that_cannot_start_is_done_without(monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("no processes here")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    companion.start_where_nothing_is_compiled()
    companion.tell(KIND)


def test_companion_compiles_what_is_needed_from_the_other_end(monkeypatch):
    compiled = []
    monkeypatch.setattr(NativeFunction, "machine_code", lambda function, *arguments: compiled.append(function))
    monkeypatch.setattr(team, "prepare_team", lambda n_workers: compiled.append("the team"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pickle.dumps(KIND))))
    companion.main()
    predictions = needed_functions(replace(KIND, training=None))
    functions = [needed.function for needed in [*reversed(needed_functions(KIND)), *predictions]]
    assert compiled == ["the team", *functions]
