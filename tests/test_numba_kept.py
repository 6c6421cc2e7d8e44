"""Machine code on disk: when it is found, what becomes of what is damaged, and that it runs without Numba."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest

from fastnet.backends.numba_backend import NumbaBackend, kept, machine_code
from fastnet.backends.numba_backend.kinds import ActivationKind, TeamKind
from fastnet.backends.numba_backend.machine_code import MachineCode
from fastnet.backends.registry import seconds_to_start

CODE = MachineCode("double-0123", "_ZN6double", bytes(range(256)) * 3 + b"\n\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where code is kept; nothing is there yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / f"fastnet-{kept._digest()}"
    monkeypatch.undo()
    forget()


def forget():
    for remembered in (kept._digest, kept._folders, kept._own_folder):
        remembered.cache_clear()


def test_what_is_kept_is_found(folder):
    assert kept.read(CODE.key) is None
    assert not kept.is_anything_kept()
    kept.keep(CODE)
    assert kept.read(CODE.key) == CODE
    assert kept.is_anything_kept()
    assert [path.name for path in folder.iterdir()] == ["double-0123.o"]  # and no files on the way there


def test_a_kind_is_found_if_all_its_functions_are(folder):
    other = CODE._replace(key="triple-0123")
    for code in (CODE, other):
        kept.keep(code)
    kept.keep_kind(TeamKind(), {"lead": CODE, "dismiss": other})
    assert kept.read_kind(TeamKind()) == {"lead": CODE, "dismiss": other}
    assert kept.read_kind(ActivationKind("relu", "float32", trains=True)) is None
    (folder / "triple-0123.o").unlink()
    assert kept.read_kind(TeamKind()) is None


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: b"", lambda text: text[:-3] + b"xyz"])
@pytest.mark.parametrize("name", ["double-0123.o", "kind"])
def test_what_is_damaged_is_as_good_as_gone(folder, name, damage):
    kept.keep(CODE)
    kept.keep_kind(TeamKind(), {"lead": CODE})
    path = folder / name if name.endswith(".o") else next(folder.glob("kind-*"))
    path.write_bytes(damage(path.read_bytes()))
    assert kept.read_kind(TeamKind()) is None
    kept.keep(CODE)
    kept.keep_kind(TeamKind(), {"lead": CODE})
    assert kept.read_kind(TeamKind()) == {"lead": CODE}


@pytest.mark.parametrize("changed", ["a source", "Numba", "the processor", "an option"])
def test_code_of_other_sources_versions_processors_and_options_is_not_taken(folder, changed, monkeypatch, tmp_path):
    kept.keep(CODE)
    if changed == "a source":
        (tmp_path / "kernels").mkdir()
        (tmp_path / "kernels" / "sources.py").write_text("a = 1", encoding="utf-8")
        monkeypatch.setattr(kept, "__file__", str(tmp_path / "kept.py"))
    elif changed == "Numba":
        monkeypatch.setattr(kept, "version", lambda name: "9.9")
    elif changed == "the processor":
        monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    else:
        monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    forget()
    assert kept.read(CODE.key) is None


def test_the_number_of_threads_is_no_option_of_the_compiler(folder, monkeypatch):
    kept.keep(CODE)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    forget()
    assert kept.read(CODE.key) == CODE


def test_without_a_place_one_line_is_logged(folder, monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(kept, "_roots", lambda: [tmp_path / "file"])
    forget()
    kept._log_missing_folder.cache_clear()
    with caplog.at_level(logging.WARNING, "fastnet"):
        for _ in range(2):
            kept.keep(CODE)
    assert kept.read(CODE.key) is None
    assert kept.is_anything_kept()  # a companion could not hand anything over
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_a_full_disk_is_no_error(folder, monkeypatch):
    kept.keep(CODE)

    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.tempfile, "NamedTemporaryFile", refuse)
    kept.keep(CODE._replace(key="other-0123"))
    assert kept.read("other-0123") is None
    assert kept.read(CODE.key) == CODE


def test_what_nobody_has_used_for_months_is_deleted(folder):
    for name, age_in_days in (("fastnet-old", 100), ("fastnet-recent", 10), ("others", 100)):
        other = folder.parent / name
        other.mkdir(parents=True)
        (other / "code.o").touch()
        os.utime(other, (time.time() - 86_400 * age_in_days,) * 2)
    kept.keep(CODE)
    assert {path.name for path in folder.parent.iterdir()} == {"fastnet-recent", "others", folder.name}


SCRIPT = """
import hashlib, sys
if {without_numba}:
    sys.modules["numba"] = None  # importing it is an error
import numpy as np
from fastnet.backends.numba_backend import NumbaBackend
from fastnet.optimizers import Adam
from fastnet.testing import make_problem
digest = hashlib.sha256()
for shape, options in (
    ((40, 20, 3), dict(activation="relu", dtype="float64", optimizer=Adam(), batch_size=7)),
    ((40, 20, 3), dict(storage="csr", activation="sigmoid")),
    ((8, 7, 3), dict(activation="gelu", output="exp", loss="poisson")),
):
    problem = make_problem(shape, **options)
    backend = NumbaBackend(n_threads=2)
    plan = problem.plan(backend)
    order = np.arange(19) if "batch_size" in options else None
    digest.update(plan.run([0.1] * 3, order).loss.tobytes() + plan.read_parameters().flat.tobytes())
    digest.update(backend.predict(problem.spec.network, problem.parameters, problem.dataset.x).tobytes())
print(digest.hexdigest(), "numba" in sys.modules)
"""


def run_script(*, without_numba):
    command = [sys.executable, "-c", SCRIPT.format(without_numba=without_numba)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


def test_what_is_on_disk_runs_without_numba_and_gives_the_same_bits():
    expected, _ = run_script(without_numba=False)
    assert run_script(without_numba=True)[0] == expected
    assert run_script(without_numba=False) == [expected, "False"]


def test_starting_takes_as_long_as_it_has_to_compile_or_to_load(folder, monkeypatch):
    addresses = {}
    monkeypatch.setattr(machine_code, "_addresses", addresses)
    seconds = [seconds_to_start()]
    kept.keep(CODE)
    seconds.append(seconds_to_start())
    addresses[CODE.key] = 1
    seconds.append(seconds_to_start())
    assert seconds[0] > 1 > seconds[1] > seconds[2] == 0


def test_numba_that_may_not_compile_is_not_available(monkeypatch):
    assert NumbaBackend().availability().ok
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    found = NumbaBackend().availability()
    assert not found.ok
    assert "unset it" in found.reason
