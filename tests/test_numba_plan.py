"""The Numba backend's plans: what is particular to them, beside what the conformance kit asks of every backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.numba_backend import NumbaBackend, plan
from fastnet.backends.numba_backend.buffers import TilePlaces, code_samples, make_group_sums, make_scratch
from fastnet.backends.numba_backend.layout import lay_out
from fastnet.backends.numba_backend.partition import CHUNK, count_groups, count_tile_rows, is_worth_sharing
from fastnet.data import Dataset
from fastnet.errors import BackendUnavailableError, PlanClosedError
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec, TrainingSpec
from fastnet.testing import Problem, assert_close, make_problem, oracle


def assert_runs_close(problem, n_steps, order=None, rate=0.1):
    """Losses, right predictions, parameters and state of a run against those of the reference in float64."""
    actual, expected = problem.plan(NumbaBackend()), oracle(problem).plan(NumpyBackend())
    metrics, exact = actual.run(np.full(n_steps, rate), order), expected.run(np.full(n_steps, rate), order)
    options = {"dtype": problem.spec.network.dtype, "longest_reduction": problem.longest_reduction * n_steps**2}
    assert_close(metrics.loss, exact.loss, **options)
    np.testing.assert_array_equal(metrics.n_correct, exact.n_correct)
    assert_close(actual.read_parameters().flat, expected.read_parameters().flat, **options)
    for name, array in expected.read_state().items():
        assert_close(actual.read_state()[name], array, name=name, **options)


def test_a_last_batch_with_fewer_groups(monkeypatch):
    monkeypatch.setattr(plan, "count_groups", lambda n_rows, *_: max(1, n_rows // 5))
    problem = make_problem(n_samples=42, batch_size=20, optimizer=SGD(momentum=0.9))
    assert_runs_close(problem, 3, np.random.default_rng(0).permutation(42))


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9, nesterov=True), Adam(), AdamW(weight_decay=0.1)])
def test_parameters_of_many_chunks(optimizer):
    """Each optimizer over several chunks, whose ends fall into a weight and between weights and biases."""
    problem = make_problem((90, 41, 37, 3), 30, optimizer=optimizer, dtype="float64", l2=0.1, input_scale=0.5)
    assert problem.parameters.flat.size > 2 * CHUNK
    assert_runs_close(problem, 8, rate=0.01)


def test_plans_have_the_threads_that_were_asked_for_as_far_as_there_is_work(monkeypatch):
    """By default as many as Numba would start, which is what joblib limits."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    large, small = make_problem((40, 33, 9, 4), 4000), make_problem()
    for n_threads, n_workers in ((None, 3), (1, 1), (2, 2), (4, 4)):
        backend = NumbaBackend(n_threads=n_threads)
        assert f"{n_workers} thread" in backend.availability().reason
        assert large.plan(backend)._workspace.n_workers == n_workers
    assert small.plan(NumbaBackend())._workspace.n_workers == 1


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
    assert_runs_close(make_problem(n_samples=12, batch_size=50), 1, np.random.default_rng(0).permutation(12))


def test_a_run_of_no_steps_changes_nothing():
    problem = make_problem()
    trained = problem.plan(NumbaBackend())
    assert trained.run([]).loss.shape == (0,)
    np.testing.assert_array_equal(trained.read_parameters().flat, problem.parameters.flat)
    assert trained.read_state()["n_updates"] == 0


def test_infinite_logits_make_the_loss_nan():
    """A difference of infinities is NaN, which the maximum that softmax subtracts must not hide."""
    problem = make_problem((4, 3))
    problem.parameters.biases[0][:] = np.inf
    assert np.isnan(problem.plan(NumbaBackend()).run([0.1]).loss).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_dense_samples_are_not_copied(dtype):
    x = np.ones((6, 40), dtype)
    samples = code_samples(NetworkSpec((40, 3), ()), x, None)
    assert np.shares_memory(samples.numbers if dtype == np.float32 else samples.bytes, x)
    assert not samples.numbers.flags.writeable
    assert not samples.bytes.flags.writeable
    assert x.flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_worker_and_group_starts_at_a_cache_line(dtype):
    """So that no two threads write to the same one."""
    layout = lay_out(NetworkSpec((5, 7, 3), ("relu",), dtype=dtype), sparse=False)
    scratch = make_scratch(layout, TilePlaces(3, 64, sorted_size=13), 3, np.dtype(dtype))
    for rows in (scratch.memory, make_group_sums(layout, 3, np.dtype(dtype)).gradients):
        assert rows.dtype == dtype
        assert [row.ctypes.data % 64 for row in rows] == [0, 0, 0]


def test_a_few_long_rows_take_memory_once():
    """Samples of a batch are sorted in room for the longest rows of all, and not for so many as long as the longest."""
    random, n_features, n_long, batch_size = np.random.default_rng(0), 4000, 20, 50
    x = random.normal(size=(300, n_features)).astype(np.float32)
    x[n_long:][random.random((300 - n_long, n_features)) > 0.001] = 0
    problem = make_problem((n_features, 5, 3), 300, batch_size=batch_size)
    problem = replace(problem, dataset=Dataset(csr_array(x), problem.dataset.targets))
    room = problem.plan(NumbaBackend())._workspace.scratch.rows.shape[1]
    longest = np.sort(np.count_nonzero(x, axis=1))[-batch_size:].sum()
    assert longest + 3 * n_features <= room < longest + 5 * n_features  # every column is filled up by three at most
    assert_runs_close(problem, 6, np.r_[:batch_size, random.permutation(np.arange(batch_size, 300))])


def test_samples_may_come_more_than_once():
    """One long row that comes again and again has more non-zeros than any batch of different ones."""
    n_features, batch_size = 3000, 40
    x = np.zeros((300, n_features), np.float32)
    x[:, 0], x[7, :2000] = 1, np.random.default_rng(0).normal(size=2000)
    problem = make_problem((n_features, 5, 3), 300, batch_size=batch_size)
    problem = replace(problem, dataset=Dataset(csr_array(x), problem.dataset.targets))
    often = np.full(2 * batch_size, 7)
    assert_runs_close(problem, 2, often)
    repeating = problem.plan(NumbaBackend())
    repeating.run(np.full(2, 0.01), often)
    assert repeating._workspace.scratch.rows.shape[1] >= batch_size * 2000  # or memory of others is written to


@pytest.mark.parametrize("n_threads", [1, 2])
def test_wide_sparse_samples_take_memory_as_their_nonzeros_do(n_threads):
    """Not as columns times tiles, nor as columns times rows of a tile."""
    n_samples, n_features = 5000, 200_000
    random = np.random.default_rng(0)
    columns = np.sort(random.integers(0, n_features, (n_samples, 10)), axis=1)
    starts = np.arange(0, 10 * n_samples + 1, 10)
    x = csr_array((np.ones(columns.size, np.float32), columns.ravel(), starts), shape=(n_samples, n_features))
    problem = make_problem((3, 2), n_samples)
    spec = replace(problem.spec, network=NetworkSpec((n_features, 2), ()))
    parameters = Parameters(ParameterLayout.of(spec.network), random.normal(size=2 * n_features + 2).astype(np.float32))
    problem = Problem(spec, parameters, Dataset(x, problem.dataset.targets))
    wide = problem.plan(NumbaBackend(n_threads=n_threads))
    _, scratch, sums = wide._workspace
    size_of_gradient = 16 * n_features * 4  # two outputs are filled up to a vector
    assert sum(array.nbytes for array in (scratch.memory, scratch.values, scratch.rows)) < size_of_gradient
    assert wide._samples.tile_starts.nbytes <= 2**25
    assert sums.gradients.nbytes <= 2**28
    assert_runs_close(problem, 3)


def test_partition_goes_by_sizes_alone_and_within_its_bounds():
    for layer_sizes in ((10, 8, 3), (784, 100, 10), (784, 512, 512, 10)):
        layout = ParameterLayout(layer_sizes, bias=True)
        groups = [
            count_groups(n_rows, layout, 4 * layout.size) for n_rows in [*range(1, 2000), *range(2000, 10**6, 997)]
        ]
        assert groups[0] == 1
        assert groups == sorted(groups)  # a shorter last batch never needs more groups than there is room for
        assert groups[-1] == 48
    assert count_groups(10**6, ParameterLayout((10_000, 10_000, 10), bias=True), 8 * 10**8) == 1  # for want of memory


def test_runs_are_shared_from_some_work_on():
    """The more the larger the network is, and whatever its steps."""
    for layer_sizes in ((2, 5, 1), (64, 100, 10), (784, 512, 512, 10)):
        layout = ParameterLayout(layer_sizes, bias=True)
        shared = [is_worth_sharing(n_rows, layout) for n_rows in 2 ** np.arange(21)]
        assert shared == sorted(shared)
        assert not shared[0]
        assert shared[-1]
    assert is_worth_sharing(1797, ParameterLayout((64, 100, 10), bias=True))  # an epoch of scikit-learn's digits
    assert not is_worth_sharing(200, ParameterLayout((30, 100, 1), bias=True))


@pytest.mark.parametrize("packed", [False, True])
def test_tiles_are_cut_so_that_their_parts_lie_at_cache_lines(packed):
    for n_rows in (1, 63, 64, 65, 200, 10**6):
        for n_columns in (3, 100, 10_000):
            rows = count_tile_rows(n_rows, n_columns, 4, packed=packed)
            assert rows % 64 == 0
            assert rows >= min(n_rows, 64)
            assert rows < n_rows + 64  # memory for what is not there
            assert not packed or rows <= 256  # rows are counted in one byte


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
    assert "1 thread" in availability.reason
    assert "1 threads" not in availability.reason


def test_everything_is_supported():
    network = NetworkSpec((3, 2, 1), ("gelu",), "sigmoid", "squared_error", bias=False)
    NumbaBackend().check_support(TrainingSpec(network, AdamW(), 7))
    assert NumbaBackend().predict(
        network, Parameters(ParameterLayout.of(network)), np.empty((0, 3), np.float32)
    ).shape == (0, 1)
