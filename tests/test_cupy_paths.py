"""Which path of the CuPy backend trains which network, on an emulated GPU, and that plans say so."""

from __future__ import annotations

import logging

import emulated_cupy
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.optimizers import Adam
from fastnet.spec import NetworkSpec, TrainingSpec
from fastnet.testing import assert_close, make_problem, oracle

H100 = {"n_multiprocessors": 132, "shared_memory_per_block": 232_448}
TURING = {"n_multiprocessors": 40, "shared_memory_per_block": 65_536}


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture
def backend(machine):
    return create_backend("cupy")


def network(*layer_sizes, dtype="float32"):
    return NetworkSpec(layer_sizes, ("relu",) * (len(layer_sizes) - 2), dtype=dtype)


def path_for(spec, x, properties):
    from fastnet.backends.cupy_backend import paths
    from fastnet.backends.cupy_backend.device import DeviceProperties

    dataset = Dataset(x, np.zeros(x.shape[0], np.int32))
    return paths.name_of(paths.find_path(spec, dataset, DeviceProperties(**properties))[0])


def noise(n_samples, n_features):
    return np.random.default_rng(0).normal(size=(n_samples, n_features)).astype(np.float32)


def pixels(n_samples, n_features):
    return np.zeros((n_samples, n_features), np.uint8)


@pytest.mark.parametrize(
    ("layer_sizes", "batch_size", "x", "path"),
    [
        ((784, 16, 10), None, pixels(42_000, 784), "narrow"),  # mnist-16
        ((784, 16, 10), None, noise(4_000, 784), "narrow"),  # dense-16, with fewer samples
        ((784, 128, 10), None, pixels(42_000, 784), "wide"),  # mnist-128
        ((784, 512, 512, 10), None, noise(8_000, 784), "generic"),  # deep-512, with fewer samples
        ((2, 5, 2), None, noise(240, 2), "tiny"),  # moons, but for its output
        ((784, 100, 10), 200, pixels(42_000, 784), "batches"),  # digits-adam
        ((30, 100, 2), 200, noise(10_000, 30), "batches"),  # tabular-adam, with fewer samples
        ((30, 16, 16, 2), None, noise(60_000, 30), "generic"),  # few weights, many samples
        ((64, 40, 10), None, noise(1_797, 64), "batches"),  # wider than the recipe digits has it
        ((784, 16, 10), None, csr_array((4_000, 784), dtype=np.float32), "generic"),
    ],
)
def test_path_of_a_network_on_an_h100(layer_sizes, batch_size, x, path):
    spec = TrainingSpec(network(*layer_sizes), batch_size=batch_size, task="multiclass")
    assert path_for(spec, x, H100) == path


def test_float64_is_computed_by_the_generic_path_but_for_the_smallest():
    assert (
        path_for(TrainingSpec(network(784, 16, 10, dtype="float64")), noise(1_000, 784).astype(float), H100)
        == "generic"
    )
    assert path_for(TrainingSpec(network(2, 5, 2, dtype="float64")), noise(240, 2).astype(float), H100) == "tiny"


def test_what_does_not_fit_into_a_block_takes_another_path():
    """A multiprocessor of Turing has 64 KB of shared memory, too little for floats with 784 features."""
    spec = TrainingSpec(network(784, 16, 10))
    assert path_for(spec, noise(4_000, 784), H100) == "narrow"
    assert path_for(spec, noise(4_000, 784), TURING) != "narrow"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_sizes": (5, 4, 3)}, "one block"),
        ({"layer_sizes": (40, 30, 3), "batch_size": 20, "n_samples": 60}, "launches"),
        ({"layer_sizes": (40, 30, 3), "dtype": "float64"}, "cuBLAS"),
    ],
)
def test_plan_says_which_path_it_takes(backend, options, words):
    assert words in make_problem(**options).plan(backend).detail


def test_what_stood_against_the_others_is_logged(backend, caplog):
    with caplog.at_level(logging.DEBUG, "fastnet"):
        make_problem((40, 30, 3), dtype="float64").plan(backend)
    for path in ("tiny", "narrow", "batches", "wide"):
        assert f"not by {path}: " in caplog.text


def test_one_network_gives_the_same_answer_on_whichever_path_its_batches_take(backend):
    """Its full batch, and the same samples as one mini-batch."""
    trained = []
    for batch_size in (None, 150):
        problem = make_problem((12, 9, 3), 150, optimizer=Adam(), batch_size=batch_size, storage="uint8")
        plan, exact = problem.plan(backend), oracle(problem).plan(NumpyBackend())
        order = None if batch_size is None else np.tile(np.arange(150), 5)
        losses, expected = plan.run([0.01] * 5, order).loss, exact.run([0.01] * 5, order).loss
        assert_close(losses, expected, dtype="float32", longest_reduction=150 * 25, name="losses")
        trained.append(losses)
    np.testing.assert_allclose(*trained, rtol=1e-5)
