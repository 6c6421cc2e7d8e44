"""How kernels are compiled: the policy, the cache on disk, and what happens without one."""

from __future__ import annotations

import importlib.util
import logging
import tokenize
from pathlib import Path

import numpy as np
import pytest

from fastnet.backends import numba_backend
from fastnet.backends.numba_backend import compiling
from fastnet.backends.numba_backend.compiling import FASTMATH, NativeFunction, driver

FOLDER = Path(numba_backend.__file__).parent

MODULE = """
from numba import prange

def double(x):
    for i in prange(x.size):
        x[i] *= 2
"""


@pytest.fixture
def double(tmp_path, monkeypatch):
    """A function in a file, beside which Numba keeps what it compiles."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")
    path = tmp_path / "doubling.py"
    path.write_text(MODULE, encoding="utf-8")
    specification = importlib.util.spec_from_file_location("doubling", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.double


def run_once(function):
    compiled, x = driver(function), np.ones(3)
    compiled(x)
    assert x.tolist() == [2, 2, 2]
    return compiled.stats.cache_hits.total()


def test_compiled_code_is_taken_from_disk_until_any_source_changes(double, monkeypatch):
    assert run_once(double) == 0
    assert run_once(double) == 1
    monkeypatch.setattr(compiling, "_sources_digest", lambda: "one of the other files has changed")
    assert run_once(double) == 0
    assert run_once(double) == 1


def test_digest_covers_every_file_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    digests = []
    for text in ("a = 1", "a = 2"):
        (tmp_path / "other.py").write_text(text, encoding="utf-8")
        digests.append(compiling._sources_digest.__wrapped__())
    assert digests[0] != digests[1]


def test_without_a_place_for_the_cache_everything_works_and_one_line_is_logged(caplog):
    namespace = {}
    exec(compile(MODULE, "<no file>", "exec"), namespace)
    compiling._log_missing_cache.cache_clear()
    with caplog.at_level(logging.WARNING, "fastnet"):
        assert run_once(namespace["double"]) == 0
        assert run_once(namespace["double"]) == 0
        native = NativeFunction(namespace["double"]).for_arguments(np.ones(3))
    assert native.address
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_other_errors_are_not_taken_for_a_missing_cache():
    def fail(**_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        compiling._with_cache(fail)


def test_nothing_is_assumed_about_nan_or_the_order_of_sums():
    assert FASTMATH.isdisjoint({"nnan", "ninf", "reassoc", "fast", "afn"})


def test_options_of_the_compiler_stand_in_one_file():
    """No kernel may be compiled with options of its own."""
    for path in FOLDER.glob("*.py"):
        if path.name == "compiling.py":
            continue
        with path.open("rb") as file:
            names = {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
        assert names.isdisjoint({"njit", "jit", "cfunc", "vectorize", "guvectorize", "fastmath"}), path.name
