"""What is compiled for a plan: what its path and its network need, once for all plans of a kind, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.numba_backend import NumbaBackend, buffers, machine_code, native
from fastnet.data import Dataset
from fastnet.optimizers import SGD, Adam
from fastnet.testing import assert_close, make_problem


@pytest.fixture
def wanted(monkeypatch):
    """Names of the native functions that were loaded, as if it were for the first time."""
    names = set()
    for remembered in (native.native_functions, buffers.code_kernels, buffers._choose_activation):
        remembered.cache_clear()

    def note(codes):
        codes = list(codes)
        names.update(name_of(code.key) for code in codes)
        return machine_code.load(codes)

    monkeypatch.setattr(native, "load", note)
    return names


def name_of(key):
    """The name of a function, without the types that it is compiled for."""
    return key.rpartition("-")[0]


UPRIGHT = {"multiply", "dot_with_panels", "row_sums", "panel_sums"}
ACROSS = {"combine_rows", "dots_of_rows", "row_sums"}
SPARSE = {"sparse_product_float32_uint16", "sparse_product_backward_float32_uint16"}
SORTING = {"sort_by_columns_float32_uint16"}
LOADING = {"load_labels", "equal_weights"}
PATHS = UPRIGHT | ACROSS | SPARSE | SORTING | LOADING | {"load_rows", "load_columns"}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"layer_sizes": (40, 20, 3)}, UPRIGHT | LOADING),
        ({"layer_sizes": (40, 20, 3), "batch_size": 5}, UPRIGHT | LOADING | {"load_rows"}),
        ({"layer_sizes": (40, 20, 3), "storage": "uint8"}, UPRIGHT | LOADING | {"load_rows"}),
        ({"layer_sizes": (40, 3)}, LOADING | {"multiply", "panel_sums"}),
        ({"layer_sizes": (8, 7, 3)}, ACROSS),
        ({"layer_sizes": (8, 7, 3), "batch_size": 5}, ACROSS | LOADING | {"load_columns"}),
        ({"layer_sizes": (40, 20, 3), "storage": "csr"}, UPRIGHT | LOADING | SPARSE),
        ({"layer_sizes": (40, 20, 3), "storage": "csr", "batch_size": 5}, UPRIGHT | LOADING | SPARSE | SORTING),
    ],
)
def test_a_plan_asks_for_the_functions_of_its_path_alone(wanted, options, path):
    make_problem(**options).plan(NumbaBackend())
    assert wanted & PATHS == path


def test_a_plan_asks_for_the_functions_of_its_network_alone(wanted):
    others = {"gelu", "gelu_backward", "tanh_forward", "sigmoid_output", "exp_poisson", "count_largest", "adam_update"}
    forward = {"relu", "softmax_output"}
    training = {"relu_backward", "softmax_cross_entropy", "count_labels", "sgd_update"}
    problem = make_problem(activation="relu", optimizer=SGD())
    NumbaBackend().predict(problem.spec.network, problem.parameters, problem.dataset.x)
    assert forward <= wanted
    assert not (training | others) & wanted
    problem.plan(NumbaBackend())
    assert forward | training <= wanted
    assert not others & wanted


def loaded():
    """For how many combinations of types each function is there."""
    return Counter(map(name_of, machine_code._addresses))


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


def test_for_a_kind_seen_before_nothing_is_even_looked_up(monkeypatch):
    """Finding it on disk takes longer than all else that a small plan has to do."""
    options = {"activation": "relu", "weighted": True, "batch_size": 10, "optimizer": Adam()}
    train(make_problem((20, 9, 7, 3), **options))

    def fail(kind):
        raise AssertionError(f"{kind} was looked up")

    monkeypatch.setattr(native.kept, "read_kind", fail)
    train(make_problem((33, 5, 40, 18, 4), 60, **options | {"batch_size": 7, "optimizer": Adam(beta_1=0.8)}))
    native.native_functions.cache_clear()
    with pytest.raises(AssertionError, match="looked up"):
        train(make_problem((20, 9, 7, 3), 12, dtype="float64", **options))


# They take whole records, and are the ones that take longest to compile.
LARGEST = ("run_steps", "predict_share", "gradient_share", "forward_upright", "backward_upright", "update_share")


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
