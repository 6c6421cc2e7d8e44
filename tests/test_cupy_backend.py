"""The CuPy backend's generic path on an emulated GPU: the conformance kit, and what concerns a device alone."""

from __future__ import annotations

import weakref
from itertools import cycle

import emulated_cupy
import numpy as np
import pytest

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.array_engine import PREDICTION_ROWS
from fastnet.backends.registry import create_backend
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.spec import ACTIVATIONS, HEADS
from fastnet.testing import conformance_checks, make_problem

# Of each activation with each head, one by one in test_cupy_kernels.py, as many pairs as have each of them in it.
PAIRS = [f"{output}-{loss}" for output, losses in HEADS.items() for loss in losses]
ALL_PAIRS = {f"gradients-{activation}-{pair}" for activation in ACTIVATIONS for pair in PAIRS}
SOME_PAIRS = {f"gradients-{activation}-{pair}" for activation, pair in zip(cycle(ACTIVATIONS), PAIRS, strict=False)}
CHECKS = {
    name: check for name, check in conformance_checks().items() if name.rpartition("-")[0] not in ALL_PAIRS - SOME_PAIRS
}
STORAGES = ("dense", "uint8", "csr")


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture(autouse=True)
def _generic(machine, monkeypatch):
    """Leave everything to the generic path; the others have tests of their own."""
    from fastnet.backends.cupy_backend import paths

    monkeypatch.setattr(paths, "PATHS", ())


@pytest.fixture
def backend(machine):
    return create_backend("cupy")


@pytest.mark.parametrize("name", CHECKS)
def test_emulated_backend_conforms(backend, name):
    CHECKS[name](backend)


OPTIONS = [
    {},
    {"l2": 0.1, "weighted": True, "reduction": "sum"},
    {"l2": 0.1, "weighted": True, "optimizer": Adam()},
    {"optimizer": AdamW(), "task": "multiclass", "output": "sigmoid"},
    {"optimizer": SGD(momentum=0.9), "output": "identity", "loss": "squared_error", "bias": False},
]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_full_batch_run_copies_nothing(backend, machine, options, storage):
    plan = make_problem(storage=storage, input_scale=0.1, **options).plan(backend)
    machine.transfers.clear()
    metrics = plan.run([0.1] * 3)
    plan.synchronize()
    assert machine.transfers == []
    assert len(metrics.loss) == len(metrics.n_correct) == 3
    assert machine.transfers == [("to host", 24)] * 3  # losses, penalties, counts


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batches_copy_their_order_and_nothing_else(backend, machine, options, storage):
    plan = make_problem(storage=storage, batch_size=8, input_scale=0.1, **options).plan(backend)
    machine.transfers.clear()
    plan.run([0.1] * 3, np.arange(19)[::-1].copy())
    assert machine.transfers == [("to device", 19 * 8)]


@pytest.mark.parametrize("storage", STORAGES)
def test_data_are_uploaded_once_and_as_they_are(backend, machine, storage):
    problem = make_problem((50, 4, 3), n_samples=40, storage=storage)
    x = problem.dataset.x
    n_bytes = x.nbytes if storage != "csr" else x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    plan = problem.plan(backend)
    plan.run([0.1] * 3)
    uploaded = sum(size for direction, size in machine.transfers if direction == "to device")
    small = problem.dataset.targets.nbytes + problem.parameters.flat.nbytes
    probe = 100
    assert n_bytes + small <= uploaded < n_bytes + small + probe


def test_step_is_made_of_few_launches(backend, machine):
    """Fused kernels are why: the reference's operations, one by one, are 41."""
    plan = make_problem((20, 8, 4), activation="relu", input_scale=1 / 255).plan(backend)
    counts = [machine.n_operations]
    for n_steps in (10, 20):
        plan.run([0.1] * n_steps)
        counts.append(machine.n_operations)
    assert np.diff(counts, 2)[0] / 10 <= 17  # what is done once for a run is no step's


def test_plan_goes_on_from_another_backends_state(backend):
    problem = make_problem(optimizer=Adam(), dtype="float64")
    rates = np.full(6, 0.01)
    expected = problem.plan(NumpyBackend())
    losses = expected.run(rates).loss

    first, second = problem.plan(NumpyBackend()), problem.plan(backend)
    first.run(rates[:3])
    second.write_parameters(first.read_parameters())
    second.write_state(first.read_state())
    np.testing.assert_allclose(second.run(rates[3:]).loss, losses[3:], rtol=1e-12)
    state, expected_state = second.read_state(), expected.read_state()
    for name, array in expected_state.items():
        np.testing.assert_allclose(state[name], array, rtol=1e-10, atol=1e-14)


def test_data_and_parameters_of_the_caller_are_not_written_to(backend):
    problem = make_problem(storage="dense", weighted=True)
    dataset = problem.dataset
    for array in (dataset.x, dataset.targets, dataset.sample_weight, problem.parameters.flat):
        array.flags.writeable = False
    problem.plan(backend).run([0.1] * 2)


@pytest.mark.parametrize("storage", STORAGES)
def test_long_predictions_are_made_in_parts(backend, machine, storage):
    problem = make_problem((3, 2, 2), n_samples=2 * PREDICTION_ROWS + 5, storage=storage)
    network, parameters, x = problem.spec.network, problem.parameters, problem.dataset.x
    actual = backend.predict(network, parameters, x)
    np.testing.assert_allclose(actual, NumpyBackend().predict(network, parameters, x), rtol=1e-5)
    assert [direction for direction, _ in machine.transfers].count("to host") == 3 + 1  # one for the probe


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("storage", STORAGES)
def test_all_work_is_done_on_the_chosen_device(machine, storage, batch_size):
    """The emulation refuses an array of one device while another is current."""
    machine.reset(n_devices=3)
    backend = create_backend("cupy", "cuda:2")
    problem = make_problem(storage=storage, batch_size=batch_size, weighted=True, optimizer=Adam())
    plan = problem.plan(backend)
    metrics = plan.run([0.1] * 3, None if batch_size is None else np.arange(19))
    plan.synchronize()
    assert np.isfinite(metrics.loss).all()
    plan.loss_and_gradients()
    plan.write_parameters(plan.read_parameters())
    plan.write_state(plan.read_state())
    backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
    assert plan._flat.device_index == 2
    assert machine.current_device == 0


def test_closed_plan_lets_go_of_the_device_memory(backend):
    plan = make_problem(optimizer=Adam()).plan(backend)
    plan.run([0.1])
    engine = plan._engine
    arrays = [weakref.ref(array) for array in (engine._x, engine._targets, plan._flat, *plan._state.values())]
    del engine
    plan.close()
    assert [array() for array in arrays] == [None] * 5
