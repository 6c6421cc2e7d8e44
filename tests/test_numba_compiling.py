"""How kernels are compiled: the policy, the cache on disk, what happens without one, and calls by address."""

from __future__ import annotations

import gc
import importlib.util
import logging
import sys
import tokenize
from pathlib import Path

import numba
import numpy as np
import pytest

from fastnet.backends import numba_backend
from fastnet.backends.numba_backend import compiling
from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.compiling import FASTMATH, NativeFunction, call, compiled
from fastnet.backends.numba_backend.products import Panels

FOLDER = Path(numba_backend.__file__).parent

MODULE = """
def double(x):
    for i in range(x.size):
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
    monkeypatch.setitem(sys.modules, "doubling", module)
    specification.loader.exec_module(module)
    return module.double


def run_once(function):
    """How often the cache was of use."""
    from_python, x = compiled(function), np.ones(3)
    from_python(x)
    assert x.tolist() == [2, 2, 2]
    return from_python.stats.cache_hits.total() + NativeFunction(function).for_arguments(x).cache_hits


def test_compiled_code_is_taken_from_disk_until_any_source_changes(double, monkeypatch):
    assert run_once(double) == 0
    assert run_once(double) == 2
    monkeypatch.setattr(compiling, "_sources_digest", lambda: "one of the other files has changed")
    assert run_once(double) == 0
    assert run_once(double) == 2


def test_digest_covers_every_file_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    digests = []
    for text in ("a = 1", "a = 2"):
        (tmp_path / "other.py").write_text(text, encoding="utf-8")
        digests.append(compiling._sources_digest.__wrapped__())
    assert digests[0] != digests[1]


def test_without_a_place_for_the_cache_everything_works_and_one_line_is_logged(double, caplog, monkeypatch, tmp_path):
    """The folder that was asked for cannot be made, and neither can those that Numba tries next."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "doubling.py"))
    monkeypatch.setattr("numba.core.caching.InTreeCacheLocator.ensure_cache_path", fail_to_write)
    monkeypatch.setattr("numba.core.caching.UserWideCacheLocator.ensure_cache_path", fail_to_write)
    compiling._log_missing_cache.cache_clear()
    with caplog.at_level(logging.WARNING, "fastnet"):
        assert run_once(double) == 0
        assert run_once(double) == 0
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text


def fail_to_write(locator):
    raise PermissionError


def test_the_garbage_collector_is_as_it_was(double):
    for enabled in (True, False):
        try:
            (gc.enable if enabled else gc.disable)()
            NativeFunction(double).for_arguments(np.ones(3))
            assert gc.isenabled() == enabled
            with pytest.raises(numba.TypingError):
                NativeFunction(double).for_arguments("no array")
            assert gc.isenabled() == enabled
        finally:
            gc.enable()


def test_that_something_is_compiled_is_told_once_and_not_of_what_is_on_disk(double, caplog):
    compiling._log_compiling.cache_clear()
    with caplog.at_level(logging.INFO, "fastnet.compiling"):
        for _ in range(2):
            NativeFunction(double).for_arguments(np.ones(3))
            assert [record.levelname for record in caplog.records] == ["INFO"]
        compiling._log_compiling.cache_clear()
        NativeFunction(double).for_arguments(np.ones(3))
    assert len(caplog.records) == 1


def test_other_errors_are_not_taken_for_a_missing_cache():
    def fail(**_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        compiling._with_cache(fail)


@NativeFunction
def note_arguments(out, panels, small, whole, flag, number, table):
    for i in range(3):
        out[i] = panels[i]
    out[3], out[4], out[5], out[6], out[7] = small, whole, flag, number, table[1, 2]


@compiled
def call_at(address, out, small, whole, flag, number, table):
    call(address, (out, Panels(whole, 2, whole + 1), small, 5, flag, number, table))


def test_arguments_arrive_at_an_address():
    """Integers of any size, and constants, also within records; arrays that can be written to for those that cannot."""
    out, table = np.zeros(8), np.arange(6, dtype=np.float32).reshape(2, 3)
    address = note_arguments.for_arguments(
        out, Panels(0, 0, 0), 0, 0, False, np.float32(0), read_only(table, "f4")
    ).address
    for small in (np.int32(-7), np.uint8(200), 3):
        call_at(address, out, small, int(small), True, np.float32(0.5), table)
        assert out.tolist() == [small, 2, int(small) + 1, small, 5, 1, 0.5, 5]


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
