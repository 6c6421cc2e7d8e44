"""How kernels are compiled: the policy, the cache on disk, what happens without one, and what is not compiled."""

from __future__ import annotations

import gc
import importlib.util
import logging
import sys
import tokenize
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends import numba_backend
from fastnet.backends.numba_backend import NumbaBackend, compiling, drivers
from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.compiling import FASTMATH, NativeFunction, call, compiled
from fastnet.backends.numba_backend.products import Panels
from fastnet.data import Dataset
from fastnet.optimizers import SGD, Adam
from fastnet.testing import assert_close, make_problem

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


@pytest.fixture
def wanted(monkeypatch):
    """Names of the native functions that were asked for, to be compiled or loaded."""
    names, for_arguments = set(), NativeFunction.for_arguments

    def note(native, *arguments):
        names.add(native._function.__name__)
        return for_arguments(native, *arguments)

    monkeypatch.setattr(NativeFunction, "for_arguments", note)
    return names


UPRIGHT = {"multiply", "dot_with_panels", "row_sums", "panel_sums"}
ACROSS = {"multiply", "dots_of_rows", "row_sums"}
SPARSE = {"sparse_product", "sparse_product_backward"}
PATHS = UPRIGHT | ACROSS | SPARSE | {"sort_by_columns", "load_rows", "load_columns"}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"layer_sizes": (40, 20, 3)}, UPRIGHT),
        ({"layer_sizes": (40, 20, 3), "batch_size": 5}, UPRIGHT | {"load_rows"}),
        ({"layer_sizes": (40, 20, 3), "storage": "uint8"}, UPRIGHT | {"load_rows"}),
        ({"layer_sizes": (40, 3)}, {"multiply", "panel_sums"}),
        ({"layer_sizes": (8, 7, 3)}, ACROSS),
        ({"layer_sizes": (8, 7, 3), "batch_size": 5}, ACROSS | {"load_columns"}),
        ({"layer_sizes": (40, 20, 3), "storage": "csr"}, UPRIGHT | SPARSE),
        ({"layer_sizes": (40, 20, 3), "storage": "csr", "batch_size": 5}, UPRIGHT | SPARSE | {"sort_by_columns"}),
    ],
)
def test_a_plan_asks_for_the_functions_of_its_path_alone(wanted, options, path):
    make_problem(**options).plan(NumbaBackend())
    assert wanted & PATHS == path


def test_a_plan_asks_for_the_functions_of_its_network_alone(wanted):
    others = {"gelu", "gelu_backward", "tanh_forward", "sigmoid_output", "exp_poisson", "count_largest", "adam_share"}
    forward, training = (
        {"relu", "softmax_output"},
        {"relu_backward", "softmax_cross_entropy", "count_labels", "sgd_share"},
    )
    problem = make_problem(activation="relu", optimizer=SGD())
    NumbaBackend().predict(problem.spec.network, problem.parameters, problem.dataset.x)
    assert forward <= wanted
    assert not (training | others) & wanted
    problem.plan(NumbaBackend())
    assert forward | training <= wanted
    assert not others & wanted


def loaded():
    """For how many combinations of types each function is there, compiled or from disk."""
    counts = {driver.__name__: len(driver.signatures) for driver in (drivers.run_steps, drivers.predict_share)}
    for native in gc.get_objects():
        if type(native) is NativeFunction:
            name = native._function.__name__
            counts[name] = counts.get(name, 0) + native.compile.cache_info().currsize
    return counts


@pytest.mark.parametrize("options", [{}, {"batch_size": 10}, {"storage": "csr", "batch_size": 10}])
def test_a_plan_has_all_compiled_that_its_runs_need(options):
    """Or the first run would take seconds more, and be blamed for them."""
    plan = make_problem((20, 9, 7, 3), **options).plan(NumbaBackend())
    before = loaded()
    plan.run([0.1], np.arange(10) if "batch_size" in options else None)
    plan.loss_and_gradients()
    assert loaded() == before
    assert before["run_steps"] > 0


def train(problem, x=None, weight=None):
    dataset = Dataset(problem.dataset.x if x is None else x, problem.dataset.targets, weight)
    plan = NumbaBackend().plan_training(problem.spec, problem.parameters, dataset)
    order = None if problem.spec.batch_size is None else np.arange(dataset.n_samples)
    losses = plan.run(np.full(2, 0.1), order).loss
    plan.loss_and_gradients()
    NumbaBackend().predict(problem.spec.network, problem.parameters, dataset.x)
    return losses


@pytest.mark.parametrize("storage", ["dense", "csr"])
def test_another_network_of_the_same_kind_compiles_nothing(storage):
    train(make_problem((20, 9, 7, 3), storage=storage, optimizer=Adam()), weight=np.ones(19, np.float32))
    before = loaded()
    options = {"storage": storage, "optimizer": Adam(beta_1=0.8), "bias": False, "l2": 0.1, "input_scale": 0.5}
    train(make_problem((33, 5, 40, 18, 4), 60, **options), weight=np.ones(60, np.float32))
    assert loaded() == before


# They take whole records, and are the ones that take longest to compile.
LARGEST = ("run_steps", "predict_share", "gradient_share", "forward_upright", "backward_upright", "sgd_share")


def test_one_compilation_serves_all_forms_of_data(tmp_path):
    """Dense, bytes, mapped, read-only, with weights and without, in batches: one type for the compiler."""
    problem = make_problem((20, 6, 3), n_samples=30)
    x, weight = problem.dataset.x, np.ones(30, np.float32)
    np.save(tmp_path / "x.npy", x)
    frozen = x.copy()
    frozen.flags.writeable = False
    sparse = csr_array(np.where(x > 1, x, 0))
    wide = csr_array((sparse.data, sparse.indices.astype(np.int64), sparse.indptr.astype(np.int64)), shape=x.shape)
    expected, expected_of_sparse = train(problem), train(problem, sparse)
    before = loaded()
    for form in (frozen, np.load(tmp_path / "x.npy", mmap_mode="r")):
        np.testing.assert_array_equal(train(problem, form), expected)
    np.testing.assert_array_equal(train(problem, wide), expected_of_sparse)
    assert_close(train(problem, x, weight), expected, dtype="float32", longest_reduction=30)
    train(problem, np.ones(x.shape, np.uint8))
    train(replace(problem, spec=replace(problem.spec, batch_size=15)))
    after = loaded()
    assert [after[name] for name in LARGEST] == [before[name] for name in LARGEST]


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
