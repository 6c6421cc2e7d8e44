"""Every way through the compiled code, taken on purpose, against the reference in float64.

Which way it is depends on the form of the samples, on the widths of the layers, and on whether steps see all samples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.numba_backend import NumbaBackend, plan
from fastnet.data import Dataset
from fastnet.optimizers import SGD
from fastnet.testing import assert_close, make_problem, oracle

# Small enough to lie across; one vector to a layer; several, and a remainder; and a single layer.
WIDTHS = {"across": (8, 7, 6, 3), "narrow": (30, 7, 8, 3), "wide": (70, 40, 33, 5), "one layer": (30, 4)}
FORMS = ("numbers", "bytes", "packed bytes", "packed numbers", "scaled bytes", "csr")
DTYPES = ("float32", "float64")

# One that is not zero at zero, and one whose derivative needs what it was given.
MIXED = ("sigmoid", "silu")

N_SAMPLES, BATCH_SIZE = 263, 100


@pytest.fixture(params=[(1, 512), (3, 64)], ids=["one group", "groups and tiles"])
def divided(request, monkeypatch):
    """Plans divide the samples into one group of one tile, or into three groups of two tiles each."""
    n_groups, tile_rows = request.param
    divide(monkeypatch, n_groups, tile_rows)


def divide(monkeypatch, n_groups, tile_rows):
    def count_tile_rows(*_, packed):
        return min(tile_rows, 256) if packed else tile_rows

    monkeypatch.setattr(plan, "count_groups", lambda n_rows, *_: max(1, min(n_rows // 30, n_groups)))
    monkeypatch.setattr(plan, "count_tile_rows", count_tile_rows)
    monkeypatch.setattr(plan, "is_worth_sharing", lambda *_: True)


def samples_in(form, x):
    """`x`, whose numbers are normal, in a form that a plan sees; most of them zero where they are to be packed."""
    if form in ("bytes", "packed bytes"):
        x = np.minimum(np.abs(x) * 80 + 1, 255).astype(np.uint8)
    if form == "scaled bytes":
        x = np.minimum(np.abs(x) * 80 + 1, 255).round() / x.dtype.type(255)
    if form not in ("numbers", "bytes"):
        x = np.where(np.random.default_rng(1).random(x.shape) < 0.2, x, x.dtype.type(0))
    return csr_array(x) if form == "csr" else x


def make(widths, form, dtype, batch_size=None, n_samples=N_SAMPLES):
    layer_sizes = WIDTHS[widths]
    scale = 0.02 if form in ("bytes", "packed bytes") else 0.7
    problem = make_problem(
        layer_sizes, n_samples, weighted=True, l2=0.01, optimizer=SGD(momentum=0.9), batch_size=batch_size,
        dtype=dtype, input_scale=scale,
    )  # fmt: skip
    network = replace(problem.spec.network, activations=MIXED[: len(layer_sizes) - 2])
    dataset = Dataset(samples_in(form, problem.dataset.x), problem.dataset.targets, problem.dataset.sample_weight)
    return replace(problem, spec=replace(problem.spec, network=network), dataset=dataset)


def assert_took_path(trained, widths, form):
    samples, packed = trained._samples, form not in ("numbers", "bytes")
    assert trained._layout.across == (widths == "across" and not packed)
    assert bool(samples.numbers.size) == (form == "numbers")
    assert bool(samples.bytes.size) == (form == "bytes")
    assert bool(samples.row_starts.size) == packed
    full_batch = trained._batch_size is None
    assert bool(samples.tile_starts.size) == (packed and full_batch)
    assert bool(samples.tile_columns.size) == (trained._layout.across and full_batch)
    if packed:
        itemsize = 1 if "bytes" in form else trained._dtype.itemsize
        assert samples.packed_values.size == itemsize * samples.row_starts[-1]


def assert_parameters_close(actual, expected, dtype, longest_reduction):
    arrays = zip(actual.weights + actual.biases, expected.weights + expected.biases, strict=True)
    for a, r in arrays:
        assert_close(a, r, dtype=dtype, longest_reduction=longest_reduction)


@pytest.mark.parametrize("batch_size", [None, BATCH_SIZE], ids=["full batch", "batches"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.usefixtures("divided")
def test_every_path_trains_as_the_reference_does(widths, form, dtype, batch_size):
    problem = make(widths, form, dtype, batch_size)
    actual, expected = problem.plan(NumbaBackend(n_threads=2)), oracle(problem).plan(NumpyBackend())
    assert_took_path(actual, widths, form)

    (loss, gradients), (exact_loss, exact_gradients) = actual.loss_and_gradients(), expected.loss_and_gradients()
    assert_close(loss, exact_loss, dtype=dtype, longest_reduction=N_SAMPLES)
    assert_parameters_close(gradients, exact_gradients, dtype, N_SAMPLES)

    # One epoch, whose last batch is shorter, and another whose samples are those of the first in another order.
    n_steps, random = 3, np.random.default_rng(0)
    for _ in range(2):
        order = None if batch_size is None else random.permutation(N_SAMPLES)
        metrics, exact = actual.run(np.full(n_steps, 0.1), order), expected.run(np.full(n_steps, 0.1), order)
        assert_close(metrics.loss, exact.loss, dtype=dtype, longest_reduction=N_SAMPLES * 36)
        np.testing.assert_array_equal(metrics.n_correct, exact.n_correct)
    assert_parameters_close(actual.read_parameters(), expected.read_parameters(), dtype, N_SAMPLES * 36)


@pytest.mark.parametrize("form", ["numbers", "packed bytes"])
@pytest.mark.parametrize("widths", WIDTHS)
def test_every_path_trains_in_many_tiles(widths, form, monkeypatch):
    """All full but for the last, which is short, and more in some groups than in others."""
    divide(monkeypatch, 5, 64)
    n_samples = 140 * 64 - 25
    problem = make(widths, form, "float32", n_samples=n_samples)
    actual, expected = problem.plan(NumbaBackend(n_threads=2)), oracle(problem).plan(NumpyBackend())
    (loss, gradients), (exact_loss, exact_gradients) = actual.loss_and_gradients(), expected.loss_and_gradients()
    assert_close(loss, exact_loss, dtype="float32", longest_reduction=n_samples)
    assert_parameters_close(gradients, exact_gradients, "float32", n_samples)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.usefixtures("divided")
def test_every_path_predicts_as_the_reference_does(widths, form, dtype):
    problem, exact = make(widths, form, dtype), oracle(make(widths, form, dtype))
    actual = NumbaBackend(n_threads=2).predict(problem.spec.network, problem.parameters, problem.dataset.x)
    expected = NumpyBackend().predict(exact.spec.network, exact.parameters, exact.dataset.x)
    assert_close(actual, expected, dtype=dtype, longest_reduction=N_SAMPLES)


@pytest.mark.parametrize("batch_size", [None, BATCH_SIZE], ids=["full batch", "batches"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("widths", WIDTHS)
def test_every_path_gives_the_same_bits_on_any_number_of_threads(widths, form, batch_size, monkeypatch):
    """And when it is taken again. Threads are more than this machine may have, and do not divide the groups evenly."""
    divide(monkeypatch, 7, 64)
    problem = make(widths, form, "float32", batch_size)
    order = None if batch_size is None else np.random.default_rng(0).permutation(N_SAMPLES)
    results = set()
    for n_threads in (1, 2, 3, 5, 5):
        backend = NumbaBackend(n_threads=n_threads)
        trained = problem.plan(backend)
        assert trained._workspace.n_workers == min(n_threads, 7 if batch_size is None else 3)
        losses = trained.run(np.full(3, 0.1), order).loss
        outputs = backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
        loss, gradients = trained.loss_and_gradients()
        parts = losses, np.float64(loss), gradients.flat, trained.read_parameters().flat, outputs
        results.add(b"".join(part.tobytes() for part in parts))
    assert len(results) == 1


def test_columns_that_need_four_bytes():
    problem = make_problem((2**16 + 5, 3), 2, dtype="float64")
    x = np.zeros(problem.dataset.x.shape)
    x[:, [0, 2**16 - 1, 2**16, -1]] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    problem = replace(problem, dataset=Dataset(csr_array(x), problem.dataset.targets))
    for batch_size in (None, 1):
        spec = replace(problem.spec, batch_size=batch_size)
        actual, expected = replace(problem, spec=spec), oracle(problem)
        loss, gradients = actual.plan(NumbaBackend()).loss_and_gradients()
        exact_loss, exact = expected.plan(NumpyBackend()).loss_and_gradients()
        assert_close(loss, exact_loss, dtype="float64", longest_reduction=4)
        assert_parameters_close(gradients, exact, "float64", 4)
