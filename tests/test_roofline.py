"""Rooflines against counts by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from fastnet import SGD, Adam
from fastnet.benchmarking import MachineSpeed, Measurement, Roofline, StepCost, as_json, count_step, measure_speeds
from fastnet.data import Dataset
from fastnet.spec import NetworkSpec, TrainingSpec

# 4 samples of 3 features, 5 of which are not zero; 3-2-2: 6 + 4 weights and 4 biases.
X = np.array([[1, 0, 0], [0, 2, 3], [0, 0, 0], [4, 0, 5]], np.float32)
LABELS = np.array([0, 1, 0, 1], np.int32)
NETWORK = NetworkSpec((3, 2, 2), ("relu",))


def cost(x=X, targets=LABELS, weight=None, *, network=NETWORK, **options):
    return count_step(TrainingSpec(network, **options), Dataset(x, targets, weight))


def test_flops_of_a_network_by_hand():
    # Multiply-adds of a sample: 6 forward and 6 for the gradient of the first weight; 4 forward, 4 for the gradient of
    # the second weight, 4 for that of its input.
    assert cost().flops == 4 * 2 * (6 + 6 + 4 + 4 + 4)
    # In the first layer a feature that is not zero meets two weights, twice.
    assert cost().flops_of_nonzeros == 2 * 5 * (2 + 2) + 4 * 2 * (4 + 4 + 4)


def test_flops_of_more_and_of_fewer_layers():
    deep = NetworkSpec((3, 2, 5, 1), ("relu", "relu"), "sigmoid")
    targets = np.zeros((4, 1), np.float32)
    assert cost(targets=targets, network=deep).flops == 4 * 2 * (2 * 6 + 3 * 10 + 3 * 5)
    shallow = NetworkSpec((3, 2), ())
    assert cost(network=shallow).flops == 4 * 2 * 2 * 6
    assert cost(network=shallow).flops_of_nonzeros == 2 * 2 * 5 * 2


def test_bytes_are_those_of_what_is_stored():
    parameters = 2 * 14 * 4  # read and written, float32
    assert cost().n_bytes == 4 * 3 * 4 + 4 * 4 + parameters
    assert cost(X.astype(np.uint8)).n_bytes == 4 * 3 + 4 * 4 + parameters
    assert cost(weight=np.ones(4, np.float32)).n_bytes == cost().n_bytes + 4 * 4
    csr = sparse.csr_array(X)
    assert cost(csr).n_bytes == 5 * 4 + 5 * 4 + 5 * 4 + 4 * 4 + parameters  # values, columns, row starts, labels
    assert cost(csr).flops_of_nonzeros == cost().flops_of_nonzeros
    double = replace(NETWORK, dtype="float64")
    assert cost(X.astype(np.float64), network=double).n_bytes == 4 * 3 * 8 + 4 * 4 + 2 * parameters


@pytest.mark.parametrize(("optimizer", "n_arrays"), [(SGD(), 1), (SGD(momentum=0.9), 2), (Adam(), 3)])
def test_what_the_optimizer_remembers_is_read_and_written_too(optimizer, n_arrays):
    assert cost(optimizer=optimizer).n_bytes == 4 * 3 * 4 + 4 * 4 + n_arrays * 2 * 14 * 4


def test_a_batch_counts_its_own_rows():
    half, parameters = cost(batch_size=2), 2 * 14 * 4
    assert half.flops == cost().flops / 2
    assert half.flops_of_nonzeros == cost().flops_of_nonzeros / 2
    assert half.n_bytes - parameters == (cost().n_bytes - parameters) / 2
    assert cost(batch_size=3).flops == cost().flops / 2  # 3 rows and 1: two on average


def test_values_that_are_stored_although_they_are_zero_are_no_nonzeros():
    stored = sparse.csr_array(X)
    stored.data[0] = 0
    assert cost(stored).flops_of_nonzeros == cost().flops_of_nonzeros - 2 * (2 + 2)


COST = StepCost(n_bytes=2e6, flops=8e6, flops_of_nonzeros=1e6)
SPEED = MachineSpeed("float32", 2, bytes_per_second=1e9, flops_per_second=2e9)


def test_the_larger_of_the_two_limits_counts():
    roofline = Roofline.of(COST, SPEED, seconds=8e-3)
    assert roofline.memory_seconds == pytest.approx(2e-3)
    assert roofline.product_seconds == pytest.approx(4e-3)
    assert roofline.product_seconds_of_nonzeros == pytest.approx(0.5e-3)
    assert roofline.fraction == pytest.approx(0.5)  # the products take longer
    assert roofline.fraction_of_nonzeros == pytest.approx(0.25)  # the bytes do


def measurement(**changes):
    figures = {
        "workload": "w", "backend": "numpy", "device": "cpu", "dtype": "float32", "n_threads": 2, "detail": "somehow",
        "data_source": "drawn", "n_samples": 1000, "n_epochs": 3, "n_steps": 100, "seconds": (0.4, 0.8, 1.6),
        "first_call_seconds": 2.0, "loss": 1.0, "expected_loss": 1.0, "agrees": True, "step_cost": COST,
    }  # fmt: skip
    return Measurement(**figures | changes)


def test_a_measurement_is_held_against_the_speed_of_its_dtype_and_threads_on_the_cpu():
    one_thread = replace(SPEED, n_threads=1, flops_per_second=1e9)
    double = replace(SPEED, dtype="float64", flops_per_second=1e9)
    assert measurement().roofline([one_thread, double, SPEED]) == Roofline.of(COST, SPEED, 8e-3)
    assert measurement().roofline([one_thread, double]) is None
    assert measurement(device="cuda:0 A device").roofline([SPEED]) is None


def test_json_holds_rooflines_where_speeds_are_known():
    described = json.loads(json.dumps(as_json([measurement(), measurement(device="cuda:0")], [SPEED])))
    assert described["measurements"][0]["roofline"]["fraction"] == pytest.approx(0.5)
    assert described["measurements"][1]["roofline"] is None
    assert described["machine"]["speeds"][0]["bytes_per_second"] == 1e9
    assert "roofline" not in as_json([measurement()])["measurements"][0]


def test_speeds_are_measured_once_for_each_setting(monkeypatch):
    from fastnet.benchmarking import speed

    monkeypatch.setattr(speed, "_BYTES", 2**22)
    monkeypatch.setattr(speed, "_MATRIX_SIZE", 128)
    speed.measure_speed.cache_clear()
    measured = measure_speeds([measurement(), measurement(dtype="float64"), measurement(), measurement(device="cuda")])
    assert [(each.dtype, each.n_threads) for each in measured] == [("float32", 2), ("float64", 2)]
    for each in measured:
        assert 1e6 < each.bytes_per_second < 1e13
        assert 1e6 < each.flops_per_second < 1e15
    speed.measure_speed.cache_clear()


def test_rates_are_work_over_the_best_time(monkeypatch):
    from fastnet.benchmarking import speed

    monkeypatch.setattr(speed, "_BYTES", 4000)
    monkeypatch.setattr(speed, "_MATRIX_SIZE", 10)
    monkeypatch.setattr(speed, "_best_seconds", lambda work: work() is None or 0.5)
    assert speed._read_bandwidth(2) == 4000 / 0.5
    assert speed._product_rate("float32") == 2 * 10**3 / 0.5
