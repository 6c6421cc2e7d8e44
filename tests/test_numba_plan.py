"""The Numba backend's plans: what is particular to them, beside what the conformance kit asks of every backend."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.numba_backend import NumbaBackend, plan, updates
from fastnet.backends.numba_backend.buffers import code_network, code_samples, make_group_sums, make_scratch
from fastnet.backends.numba_backend.gradients import gradient_share
from fastnet.backends.numba_backend.partition import count_groups, count_tile_rows
from fastnet.data import Dataset
from fastnet.errors import BackendUnavailableError, PlanClosedError
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec, TrainingSpec
from fastnet.testing import assert_close, make_problem, oracle


@pytest.fixture
def divided(monkeypatch):
    """Makes plans divide their batches into given numbers of groups, and those into tiles of given heights."""

    def divide(n_groups, tile_rows):
        monkeypatch.setattr(plan, "count_groups", lambda n_rows, *_: max(1, min(n_rows, n_groups)))
        monkeypatch.setattr(plan, "count_tile_rows", lambda *_: tile_rows)

    return divide


def assert_gradients_close(problem, backend=None):
    actual, expected = problem.plan(backend or NumbaBackend()), oracle(problem).plan(NumpyBackend())
    (loss, gradients), (expected_loss, expected_gradients) = actual.loss_and_gradients(), expected.loss_and_gradients()
    options = {"dtype": problem.spec.network.dtype, "longest_reduction": problem.longest_reduction}
    assert_close(loss, expected_loss, **options)
    for a, r in zip(
        gradients.weights + gradients.biases, expected_gradients.weights + expected_gradients.biases, strict=True
    ):
        assert_close(a, r, **options)


@pytest.mark.parametrize("storage", ["dense", "uint8", "csr"])
@pytest.mark.parametrize(("n_groups", "tile_rows"), [(1, 1), (1, 5), (3, 4), (7, 2), (23, 8)])
def test_groups_and_tiles_of_any_size_give_the_gradient(divided, n_groups, tile_rows, storage):
    divided(n_groups, tile_rows)
    assert_gradients_close(make_problem(n_samples=23, storage=storage, weighted=True, input_scale=0.01))


def test_a_last_batch_with_fewer_groups(divided, monkeypatch):
    divided(4, 3)
    monkeypatch.setattr(plan, "count_groups", lambda n_rows, *_: max(1, n_rows // 5))
    problem = make_problem(n_samples=42, batch_size=20, optimizer=SGD(momentum=0.9))
    order = np.random.default_rng(0).permutation(42)
    actual, expected = problem.plan(NumbaBackend()), oracle(problem).plan(NumpyBackend())
    metrics, exact = actual.run(np.full(3, 0.1), order), expected.run(np.full(3, 0.1), order)
    assert_close(metrics.loss, exact.loss, dtype="float32", longest_reduction=42)
    np.testing.assert_array_equal(metrics.n_correct, exact.n_correct)
    assert_close(actual.read_parameters().flat, expected.read_parameters().flat, dtype="float32", longest_reduction=42)


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9, nesterov=True), Adam(), AdamW(weight_decay=0.1)])
def test_parameters_of_many_chunks(optimizer):
    """Each optimizer over several chunks, whose ends fall into a weight and between weights and biases."""
    problem = make_problem((90, 41, 37, 3), 30, optimizer=optimizer, dtype="float64", l2=0.1, input_scale=0.5)
    assert problem.parameters.flat.size > 2 * updates.CHUNK
    actual, expected = problem.plan(NumbaBackend()), oracle(problem).plan(NumpyBackend())
    metrics, exact = actual.run(np.full(8, 0.01)), expected.run(np.full(8, 0.01))
    assert_close(metrics.loss, exact.loss, dtype="float64", longest_reduction=90 * 64)
    assert_close(
        actual.read_parameters().flat, expected.read_parameters().flat, dtype="float64", longest_reduction=90 * 64
    )
    for name, array in expected.read_state().items():
        assert_close(actual.read_state()[name], array, dtype="float64", longest_reduction=90 * 64, name=name)


def test_one_worker_and_several_give_the_same_bits():
    """Several workers and one take other ways through the driver; their shares differ, their sums must not."""
    problem = make_problem((40, 33, 9, 4), 1500, optimizer=Adam(), l2=0.01)
    assert count_groups(1500, problem.parameters.layout, 4) > 2
    bits = []
    for n_threads in (1, 2):
        backend = NumbaBackend(n_threads=n_threads)
        trained = problem.plan(backend)
        losses = trained.run(np.full(5, 0.01)).loss
        outputs = backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
        bits.append([losses.tobytes(), trained.read_parameters().flat.tobytes(), outputs.tobytes()])
    assert bits[0] == bits[1]


def test_predictions_do_not_depend_on_the_samples_beside_them():
    problem = make_problem((40, 33, 9, 4), 1500)
    network, parameters, x = problem.spec.network, problem.parameters, problem.dataset.x
    together = NumbaBackend().predict(network, parameters, x)
    apart = np.concatenate([NumbaBackend().predict(network, parameters, part) for part in np.split(x, [1, 700])])
    assert_close(apart, together, dtype="float32", longest_reduction=40)


def test_a_batch_whose_weights_are_all_zero():
    """Its loss is the l2 penalty alone, and so is its gradient; the batch after it is as if alone."""
    problem = make_problem(n_samples=20, batch_size=10, l2=0.5, dtype="float64")
    weight = np.r_[np.zeros(10), np.ones(10)]
    dataset = Dataset(problem.dataset.x, problem.dataset.targets, weight)
    trained = NumbaBackend().plan_training(problem.spec, problem.parameters, dataset)
    before = problem.parameters
    metrics = trained.run([0.1], np.arange(10))
    penalty = 0.25 * sum((each**2).sum() for each in before.weights)
    assert metrics.loss[0] == pytest.approx(penalty, rel=1e-12)
    after = trained.read_parameters()
    for weight_before, weight_after in zip(before.weights, after.weights, strict=True):
        np.testing.assert_allclose(weight_after, weight_before * (1 - 0.1 * 0.5), rtol=1e-12)
    for bias_before, bias_after in zip(before.biases, after.biases, strict=True):
        np.testing.assert_array_equal(bias_after, bias_before)


def test_a_batch_larger_than_the_dataset():
    problem = make_problem(n_samples=12, batch_size=50)
    order = np.random.default_rng(0).permutation(12)
    actual, expected = problem.plan(NumbaBackend()), oracle(problem).plan(NumpyBackend())
    assert_close(actual.run([0.1], order).loss, expected.run([0.1], order).loss, dtype="float32", longest_reduction=12)


def test_a_run_of_no_steps_changes_nothing():
    problem = make_problem()
    trained = problem.plan(NumbaBackend())
    assert trained.run([]).loss.shape == (0,)
    np.testing.assert_array_equal(trained.read_parameters().flat, problem.parameters.flat)
    assert trained.read_state()["n_updates"] == 0


def test_biases_that_are_not_there_stay_zero():
    problem = make_problem(bias=False, optimizer=SGD(momentum=0.9))
    trained = problem.plan(NumbaBackend())
    trained.run(np.full(3, 0.5))
    beyond = trained._state.flat[problem.parameters.layout.size :]
    assert beyond.size > 0
    assert not beyond.any()


def test_infinite_logits_make_the_loss_nan():
    """A difference of infinities is NaN, which the maximum that softmax subtracts must not hide."""
    problem = make_problem((4, 3))
    problem.parameters.biases[0][:] = np.inf
    assert np.isnan(problem.plan(NumbaBackend()).run([0.1]).loss).all()


def test_one_compilation_serves_all_forms_of_data(tmp_path):
    """Dense, bytes, sparse, mapped, read-only; labels and matrices; with weights and without: one type for Numba."""
    problem = make_problem(n_samples=30)
    x, labels = problem.dataset.x, problem.dataset.targets
    np.save(tmp_path / "x.npy", x)
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = csr_array(x)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    weight = np.ones(30, np.float32)
    forms = [x, frozen, np.load(tmp_path / "x.npy", mmap_mode="r"), np.ones(x.shape, np.uint8), csr_array(x), wide]
    datasets = [Dataset(form, labels) for form in forms] + [Dataset(x, labels, weight)]
    problem.plan(NumbaBackend())
    n_compiled = gradient_share.compile.cache_info().currsize
    losses = [NumbaBackend().plan_training(problem.spec, problem.parameters, each).run([0.1]).loss for each in datasets]
    make_problem((4, 3), output="identity", loss="squared_error", optimizer=Adam()).plan(NumbaBackend())
    assert gradient_share.compile.cache_info().currsize == n_compiled
    assert_close(losses[4:6], losses[:2], dtype="float32", longest_reduction=30)


def test_dense_samples_are_not_copied():
    network = NetworkSpec((4, 3), ())
    for x in (np.ones((6, 4), np.float32), np.ones((6, 4), np.uint8)):
        samples = code_samples(network, x)
        assert np.shares_memory(samples.bytes, x)
        assert not samples.bytes.flags.writeable
        assert x.flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_worker_and_group_starts_at_a_cache_line(dtype):
    """So that BLAS, which may go by alignment, adds up alike whoever's turn it is."""
    network = code_network(NetworkSpec((5, 7, 3), ("relu",), dtype=dtype))
    for rows in (
        make_scratch(network, 17, 3, np.dtype(dtype)).memory,
        make_group_sums(network, 3, np.dtype(dtype)).gradients,
    ):
        assert rows.dtype == dtype
        assert [row.ctypes.data % 64 for row in rows] == [0, 0, 0]


def test_partition_goes_by_sizes_alone_and_within_its_bounds():
    layout = ParameterLayout((784, 100, 10), bias=True)
    groups = [count_groups(n_rows, layout, 4) for n_rows in range(1, 5000)]
    assert groups[0] == 1
    assert groups == sorted(groups)  # a shorter last batch never needs more groups than there is room for
    assert max(groups) == 48
    assert count_groups(10**6, ParameterLayout((10_000, 10_000, 10), bias=True), 8) == 1  # for want of memory
    for n_rows in (1, 15, 100, 10**6):
        rows = count_tile_rows(n_rows, layout, 4)
        assert rows % 16 == 0
        assert min(n_rows, 64) <= rows <= 256


def test_a_closed_plan_lets_go_of_the_data_and_says_so():
    problem = make_problem(batch_size=5)
    trained = problem.plan(NumbaBackend())
    trained.close()
    for use in (
        lambda: trained.run([0.1], np.arange(5)),
        trained.loss_and_gradients,
        trained.read_parameters,
        lambda: trained.write_parameters(problem.parameters),
        trained.read_state,
        lambda: trained.write_state({"n_updates": np.array(0)}),
        trained.synchronize,
    ):
        with pytest.raises(PlanClosedError, match="plan_training"):
            use()
    assert "_samples" not in vars(trained)


def test_only_the_cpu_is_driven():
    with pytest.raises(BackendUnavailableError, match="cupy"):
        NumbaBackend(device="cuda")
    availability = NumbaBackend(device="cpu", n_threads=1).availability()
    assert availability.ok
    assert "1 thread," in availability.reason


def test_everything_is_supported():
    network = NetworkSpec((3, 2, 1), ("gelu",), "sigmoid", "squared_error", bias=False)
    NumbaBackend().check_support(TrainingSpec(network, AdamW(), 7))
    assert NumbaBackend().predict(
        network, Parameters(ParameterLayout.of(network)), np.empty((0, 3), np.float32)
    ).shape == (0, 1)
