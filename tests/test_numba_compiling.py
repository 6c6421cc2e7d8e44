"""How kernels are compiled: the policy, and calls by address."""

from __future__ import annotations

import gc
import logging
import tokenize
from pathlib import Path

import numba
import numpy as np
import pytest
from native_calls import compiled

from fastnet.backends.numba_backend import kernels
from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.kernels import compiling
from fastnet.backends.numba_backend.kernels.compiling import FASTMATH, NativeFunction, call
from fastnet.backends.numba_backend.kernels.products import Panels

FOLDER = Path(kernels.__file__).parent


@NativeFunction
def double(x):
    for i in range(x.size):
        x[i] *= 2


def test_the_garbage_collector_is_as_it_was():
    for enabled in (True, False):
        try:
            (gc.enable if enabled else gc.disable)()
            NativeFunction(double.function).compile(np.ones(3))
            assert gc.isenabled() == enabled
            with pytest.raises(numba.TypingError):
                double.compile("no array")
            assert gc.isenabled() == enabled
        finally:
            gc.enable()


def test_that_something_is_compiled_is_told_once(caplog):
    compiling._log_compiling.cache_clear()
    with caplog.at_level(logging.INFO, "fastnet.compiling"):
        for _ in range(2):
            NativeFunction(double.function).compile(np.ones(3))
            assert [record.levelname for record in caplog.records] == ["INFO"]


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
    address = note_arguments.compile(out, Panels(0, 0, 0), 0, 0, False, np.float32(0), read_only(table, "f4")).address
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
