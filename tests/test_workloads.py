"""Workloads and their timing: what is trained is right, and so is the arithmetic of what is reported."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from conftest import require_or_skip

from fastnet.backends.registry import create_backend
from fastnet.benchmarking import (
    BackendTrial,
    Measurement,
    StepCost,
    as_json,
    compare,
    describe_machine,
    time_alternately,
)
from fastnet.errors import DataError, SpecError
from fastnet.network import Network
from fastnet.workloads import SMOKE_SCALE, WORKLOADS, find_workload, load


@pytest.fixture(scope="module", params=WORKLOADS)
def loaded(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FASTNET_DATA", raising=False)
        return load(request.param, scale=SMOKE_SCALE)


def trial_of(loaded, backend_name):
    return BackendTrial(loaded, create_backend(backend_name), n_threads=1)


def test_names():
    assert list(WORKLOADS) == [
        "mnist-16", "mnist-128", "dense-16", "deep-512", "moons", "sum", "digits-adam", "dense-adam", "tabular-adam",
    ]  # fmt: skip
    assert all(name == workload.name for name, workload in WORKLOADS.items())
    with pytest.raises(SpecError, match="did you mean 'mnist-16'"):
        find_workload("mnist16")


def test_shapes(loaded):
    workload, spec = loaded.workload, loaded.spec
    sizes = {"mnist-16": (784, 16, 10), "deep-512": (784, 512, 512, 10), "tabular-adam": (30, 100, 2)}
    assert spec.network.layer_sizes == sizes.get(workload.name, spec.network.layer_sizes)
    assert loaded.dataset.x.shape == (workload.n_samples, spec.network.n_features)
    assert workload.n_samples % (workload.batch_size or workload.n_samples) == 0
    assert loaded.n_steps >= 2
    if spec.network.takes_labels:
        assert set(loaded.dataset.targets.tolist()) == set(range(10))


def test_training_moves_the_loss_by_much_more_than_the_tolerance(loaded):
    """Or agreement would tell nothing."""
    start = loaded.loss(loaded.start)
    assert start - loaded.expected_loss > 30 * loaded.workload.loss_tolerance * start


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
def test_backends_reach_the_expected_loss_again_and_again(loaded, backend_name):
    require_or_skip(backend_name)
    trial = trial_of(loaded, backend_name)
    trial.run()
    first = trial.parameters()
    assert loaded.agrees(loaded.loss(first))
    trial.run()
    assert not loaded.agrees(loaded.loss(trial.parameters()))  # it went on from there
    trial.reset()
    np.testing.assert_array_equal(trial.parameters().flat, loaded.start.flat)
    trial.run()
    np.testing.assert_array_equal(trial.parameters().flat, first.flat)
    trial.close()


def test_the_loss_is_the_one_that_a_network_reports(loaded):
    spec = loaded.spec.network
    network = Network(
        spec.layer_sizes,
        activation=spec.activations,
        output=spec.output,
        loss=spec.loss,
        bias=spec.bias,
        reduction=spec.reduction,
        input_scale=spec.input_scale,
        dtype="float64",
        init=loaded.start.weights,
        bias_init=loaded.start.biases or "zeros",
        backend="numpy",
    )
    reported = network.evaluate(loaded.dataset.x, loaded.dataset.targets)["loss"]
    assert loaded.loss(loaded.start) == pytest.approx(reported, rel=1e-12)


def test_features_are_scaled():
    loaded = load("mnist-16", scale=SMOKE_SCALE)
    features = loaded.features("float32")
    assert features.dtype == np.float32
    assert features.max() == 1.0


def test_epoch_orders_are_permutations_and_the_same_for_everyone():
    loaded = load("tabular-adam", scale=SMOKE_SCALE)
    orders, again = list(loaded.epoch_orders()), list(loaded.epoch_orders())
    assert len(orders) == loaded.workload.n_epochs
    for order, same in zip(orders, again, strict=True):
        np.testing.assert_array_equal(order, same)
        np.testing.assert_array_equal(np.sort(order), np.arange(loaded.dataset.n_samples))


def test_synthetic_digits_look_like_mnist_to_whoever_trains_on_them(monkeypatch):
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    loaded = load("mnist-16", scale=0.1)
    assert loaded.dataset.x.dtype == np.uint8
    assert (loaded.dataset.x == 0).mean() == pytest.approx(0.81, abs=0.01)
    assert loaded.data_source.startswith("synthetic")


def test_real_digits_where_there_are_some(mnist_directory):
    loaded = load("mnist-16", mnist_directory, SMOKE_SCALE)
    assert loaded.data_source == "MNIST training images"
    assert (loaded.dataset.x == 0).mean() == pytest.approx(0.81, abs=0.02)


def test_a_directory_without_mnist_is_told(tmp_path):
    with pytest.raises(DataError, match="MNIST"):
        load("digits-adam", tmp_path)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, math.nan])
def test_scale_out_of_range(scale):
    with pytest.raises(SpecError, match="scale"):
        load("moons", scale=scale)


def measurement(**changes):
    figures = {
        "workload": "w", "backend": "numpy", "device": "cpu", "dtype": "float32", "n_threads": 2, "detail": "somehow",
        "data_source": "drawn", "n_samples": 1000, "n_epochs": 3, "n_steps": 15, "seconds": (0.3, 0.6, 1.5),
        "first_call_seconds": 2.0, "loss": 1.0, "expected_loss": 1.0, "agrees": True,
        "step_cost": StepCost(n_bytes=4e6, flops=8e9, flops_of_nonzeros=2e9),
    }  # fmt: skip
    return Measurement(**figures | changes)


def test_arithmetic_of_a_measurement():
    assert measurement().ms_per_step == pytest.approx(40.0)  # 0.6 s for 15 steps
    assert measurement().best_ms_per_step == pytest.approx(20.0)
    assert measurement().samples_per_second == pytest.approx(5000.0)  # 3,000 samples in 0.6 s


def test_json():
    described = json.loads(json.dumps(as_json([measurement()])))
    assert described["measurements"][0]["ms_per_step"] == pytest.approx(40.0)
    assert described["measurements"][0]["seconds"] == [0.3, 0.6, 1.5]
    assert described["machine"]["versions"]["numpy"] == np.__version__
    assert described["measurements"][0]["detail"] == "somehow"
    assert described["measurements"][0]["step_cost"] == {"n_bytes": 4e6, "flops": 8e9, "flops_of_nonzeros": 2e9}
    assert describe_machine()["n_cpus"] >= 1


class Sleeper:
    """A trial that records who was called in which order."""

    def __init__(self, name, log, seconds):
        self.name, self.log, self.seconds = name, log, seconds

    def reset(self):
        self.log.append(f"reset {self.name}")
        time.sleep(0.05)  # not timed

    def run(self):
        self.log.append(f"run {self.name}")
        time.sleep(self.seconds)


def test_trials_take_turns_and_resets_are_not_timed():
    log = []
    times = time_alternately([Sleeper("a", log, 0.0), Sleeper("b", log, 0.02)], rounds=2)
    assert log == ["reset a", "run a", "reset b", "run b"] * 2
    assert [len(each) for each in times] == [2, 2]
    assert min(times[0]) < 0.05
    assert min(times[1]) >= 0.02


@pytest.mark.parametrize(("names", "waits"), [("ab", True), ("a", False)])
def test_trials_wait_until_the_threads_of_others_have_come_to_rest(names, waits):
    """Those of OpenBLAS spin for a tenth of a second."""
    spinning_ends = 0.0
    found_rest = []

    class Spinner(Sleeper):
        def reset(self):
            found_rest.append(time.perf_counter() > spinning_ends)

        def run(self):
            nonlocal spinning_ends
            spinning_ends = time.perf_counter() + 0.15

    time_alternately([Spinner(name, [], 0.0) for name in names], rounds=2)
    assert found_rest[1:] == [waits] * (2 * len(names) - 1)


def test_rounds_go_on_for_as_long_as_they_should():
    start = time.perf_counter()
    (times,) = time_alternately([Sleeper("a", [], 0.0)], rounds=2, at_least=0.5)
    assert time.perf_counter() - start >= 0.5
    assert len(times) > 2


def test_runs_that_warm_up_are_not_timed():
    log = []
    (times,) = time_alternately([Sleeper("a", log, 0.0)], rounds=2, warms_up=True)
    assert log == ["reset a", "run a"] * 4
    assert len(times) == 2


def test_compare():
    comparison = compare("moons", ["numpy", "numpy"], scale=SMOKE_SCALE, rounds=3, n_threads=1)
    assert comparison.absent == {}
    measured = comparison.measurements
    assert [each.backend for each in measured] == ["numpy", "numpy"]
    for each in measured:
        assert each.agrees
        assert len(each.seconds) == 3
        assert min(each.seconds) > 0
        assert each.first_call_seconds > 0
        assert (each.n_steps, each.n_threads, each.dtype) == (200, 1, "float32")
        assert each.detail == "array operations of NumPy, one call per operation"
    with pytest.raises(SpecError, match="rounds"):
        compare("moons", ["numpy"], rounds=0)


def test_compare_tells_a_backend_that_goes_astray(monkeypatch):
    from fastnet.backends.array_plan import ArrayPlan

    honest = ArrayPlan.run

    def too_short(plan, learning_rates, order=None):
        # The expectation, in float64, is left alone.
        sabotaged = plan.read_parameters().flat.dtype == np.float32
        return honest(plan, np.asarray(learning_rates) * (0.9 if sabotaged else 1.0), order)

    monkeypatch.setattr(ArrayPlan, "run", too_short)
    (measured,) = compare("moons", ["numpy"], scale=SMOKE_SCALE, rounds=1).measurements
    assert not measured.agrees
