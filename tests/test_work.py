"""How long work takes is reckoned from its sizes: more never takes less, and known fits land where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from fastnet.backends.work import Work
from fastnet.data import Dataset
from fastnet.optimizers import SGD
from fastnet.recipes import load_recipe
from fastnet.spec import NetworkSpec, TrainingSpec
from fastnet.workloads import WORKLOADS

sizes = st.lists(st.integers(1, 3000), min_size=2, max_size=5)
counts = st.integers(1, 10**6)


@given(sizes, counts, counts, st.booleans())
def test_more_work_never_takes_less(layer_sizes, n_rows, n_steps, has_kernels):
    less = Work(tuple(layer_sizes), n_rows, n_steps, has_kernels=has_kernels)
    for more in (
        Work((*layer_sizes, 1), n_rows, n_steps, has_kernels=has_kernels),
        Work(tuple(layer_sizes), n_rows + 1, n_steps, has_kernels=has_kernels),
        Work(tuple(layer_sizes), n_rows, n_steps + 1, has_kernels=has_kernels),
        Work(tuple(layer_sizes), n_rows, n_steps, has_kernels=False),
    ):
        assert more.cpu_seconds(2) >= less.cpu_seconds(2) > 0
        assert more.gpu_seconds >= less.gpu_seconds > 0


@given(sizes, counts, counts, st.integers(1, 64))
def test_the_reason_is_given_where_a_cpu_is_the_better_choice_and_nowhere_else(layer_sizes, n_rows, n_steps, n_threads):
    work = Work(tuple(layer_sizes), n_rows, n_steps)
    reason = work.describe_if_small(n_threads)
    assert (reason is None) == (work.cpu_seconds(n_threads) > work.gpu_seconds)
    if reason is not None:
        assert reason.startswith(f"too little work, for which a CPU takes about {work.cpu_seconds(n_threads):.2g} s")


def test_products_of_a_step_are_counted():
    """A multiply-add for each weight and row, forward, back and for the gradient."""
    network = NetworkSpec((5, 4, 3), ("relu",))
    dataset = Dataset(np.zeros((100, 5), np.float32), np.zeros(100, np.int32))
    full = Work.of_training(TrainingSpec(network), dataset, n_steps=7)
    assert (full.flops_per_step, full.n_steps, full.has_kernels) == (100 * 32 * 6, 7, True)
    batches = Work.of_training(TrainingSpec(network, batch_size=10), dataset, n_steps=7)
    assert batches.flops_per_step == 10 * 32 * 6
    assert Work.of_prediction((5, 4, 3), 100).flops_per_step == 100 * 32 * 2


def test_what_a_gpu_makes_operation_by_operation_takes_it_longer():
    x, y = np.zeros((100, 5)), np.zeros(100, np.int32)
    float32, float64 = (NetworkSpec((5, 4, 3), ("relu",), dtype=dtype) for dtype in ("float32", "float64"))
    kernels = Work.of_training(TrainingSpec(float32), Dataset(x.astype("f4"), y), 1000)
    for network, samples in ((float64, x), (float32, csr_array(x.astype("f4")))):
        operations = Work.of_training(TrainingSpec(network), Dataset(samples, y), 1000)
        assert operations.gpu_seconds > kernels.gpu_seconds


@pytest.mark.parametrize(
    ("recipe", "layer_sizes", "n_samples"),
    [
        ("digits", (64, 32, 10), 1437),
        ("moons", (2, 5, 1), 240),
        ("or-gate", (2, 3, 1), 4),
        ("sum", (2, 3, 1), 10_000),
        ("deep-sigmoid", (64, 32, 32, 32, 10), 1437),
    ],
)
def test_the_small_recipes_are_for_a_cpu(recipe, layer_sizes, n_samples):
    """Two CPUs are done with each of them before a GPU has started."""
    training = load_recipe(recipe).training
    n_rows = training.get("batch_size", n_samples)
    n_steps = training.get("n_steps") or training["n_epochs"] * -(-n_samples // n_rows)
    assert Work(layer_sizes, n_rows, n_steps).describe_if_small(2) is not None


@pytest.mark.parametrize("workload", ["mnist-16", "mnist-128", "deep-512", "digits-adam"])
def test_training_on_mnist_is_for_a_gpu(workload):
    """A hundred epochs, where there are four CPUs."""
    workload = WORKLOADS[workload]
    spec = TrainingSpec(workload.network, SGD(), workload.batch_size)
    n_steps = 100 * spec.n_steps(workload.n_samples)
    assert Work(workload.network.layer_sizes, workload.batch_size or 42_000, n_steps).describe_if_small(4) is None


def test_all_cpus_of_the_process_are_counted_on(monkeypatch):
    from fastnet.backends import work

    monkeypatch.setattr(work, "_count_cpus", lambda: 8)
    large = Work((784, 512, 10), 42_000, 10)
    assert large.cpu_seconds() == large.cpu_seconds(8) < large.cpu_seconds(2)
