"""What does not fit into a device's memory is told before anything is uploaded, and nothing is lost."""

from __future__ import annotations

import sys

import emulated_cupy
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet import SGD, Adam, DeviceMemoryError, FastnetError, Network
from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.testing import make_problem

STORAGES = ("dense", "uint8", "csr")


def estimate_needs(path, spec, dataset):
    from fastnet.backends.cupy_backend import memory

    return memory.estimate_needs(path, spec, dataset)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """With the generic path alone; others are asked for by name."""
    with emulated_cupy.installed() as machine:
        from fastnet.backends.cupy_backend import paths

        monkeypatch.setattr(paths, "PATHS", ())
        yield machine


@pytest.fixture
def backend(machine):
    found = create_backend("cupy")
    assert found.availability().ok
    machine.transfers.clear()
    return found


def plan_of_ones(backend, n_samples, storage="dense", batch_size=None, hidden=1):
    problem = make_problem((1000, hidden, 3), n_samples=1, batch_size=batch_size)
    x = np.ones((n_samples, 1000), "uint8" if storage == "uint8" else "float32")
    dataset = Dataset(csr_array(x) if storage == "csr" else x, np.zeros(n_samples, np.int32))
    return backend.plan_training(problem.spec, problem.parameters, dataset)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "options",
    [
        {"layer_sizes": (200, 3, 4)},
        {"layer_sizes": (30, 300, 20, 4), "optimizer": Adam()},
        {"layer_sizes": (30, 20, 300, 4), "activation": "identity", "optimizer": SGD(momentum=0.9), "dtype": "float64"},
        {"layer_sizes": (200, 4)},
        {"layer_sizes": (200, 300, 4), "batch_size": 500},
        {"layer_sizes": (2, 300, 200, 100, 4), "batch_size": 500, "optimizer": Adam()},
    ],
    ids=lambda options: "-".join(map(str, options["layer_sizes"])),
)
def test_what_is_reckoned_is_what_a_plan_takes(machine, backend, monkeypatch, options, storage):
    """The emulation counts the memory that arrays take at one time."""
    from fastnet.backends.cupy_backend import sparse

    monkeypatch.setattr(sparse, "_MAX_SEGMENTS", 1)  # more of them take some megabytes, whatever the data
    problem = make_problem(n_samples=2000, storage=storage, **options)
    machine.memory = type(machine.memory)()
    plan = problem.plan(backend)
    size = problem.spec.batch_size
    plan.run([0.1] * 3, None if size is None else np.arange(3 * size))
    needs = estimate_needs("generic", problem.spec, problem.dataset).total
    assert 0.97 * machine.memory.peak < needs < 1.01 * machine.memory.peak


@pytest.mark.parametrize(
    ("storage", "batch_size", "megabytes"),
    [
        ("dense", None, 20),
        ("dense", 10, 20),
        ("uint8", None, 25),
        ("uint8", 10, 5),
        ("csr", None, 200),
        ("csr", 10, 40),
    ],
)
def test_data_too_large_for_the_device(backend, machine, storage, batch_size, megabytes):
    """For the full batch uint8 is converted to floats as a whole, and CSR is transposed."""
    machine.free_bytes = 4_000_000
    with pytest.raises(DeviceMemoryError) as caught:
        plan_of_ones(backend, 5000, storage, batch_size)
    message = str(caught.value)
    assert f"needs about {megabytes} MB (X {megabytes} MB," in message
    # No batch and no type would make it fit.
    assert message.endswith("the device cuda:0 has 4 MB free of 8 MB: train on the CPU with backend='numba'")
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, FastnetError)
    assert machine.transfers == []


@pytest.mark.parametrize(
    ("storage", "batch_size", "free", "remedies"),
    [
        ("dense", None, 55, ["train on batches with batch_size="]),
        ("dense", None, 25, []),
        ("dense", 4000, 65, ["train on smaller batches with batch_size=", "pass X as uint8, scaled by input_scale="]),
        ("dense", 4000, 45, ["train on smaller batches with batch_size="]),
        ("dense", 10, 15, ["pass X as uint8, scaled by input_scale="]),
        ("uint8", 4000, 45, ["train on smaller batches with batch_size="]),
        ("csr", 10, 15, []),
    ],
)
def test_remedies_that_would_do_are_told_and_no_others(backend, machine, storage, batch_size, free, remedies):
    """X of floats takes 20 MB, of bytes 5; parameters and their gradients 6; a step of the full batch 30, of 4000 40.

    The full batch is converted to floats, so that bytes do not save anything.
    """
    machine.free_bytes = free * 1_000_000
    with pytest.raises(DeviceMemoryError) as caught:
        plan_of_ones(backend, 5000, storage, batch_size, hidden=500)
    told = str(caught.value).partition(": ")[2].split(", or ")
    assert [one.startswith(remedy) for one, remedy in zip(told, remedies, strict=False)] == [True] * len(remedies)
    assert told[len(remedies) :] == ["train on the CPU with backend='numba'"]
    if remedies and "batches" in remedies[0]:
        assert plan_of_ones(backend, 5000, storage, 10, hidden=500) is not None
    if remedies and "uint8" in remedies[-1]:
        assert plan_of_ones(backend, 5000, "uint8", batch_size, hidden=500) is not None


def test_memory_that_the_pool_holds_free_can_be_had(backend, machine):
    machine.reset(free_bytes=17_000_000)
    with pytest.raises(DeviceMemoryError, match="cuda:0 has 17 MB free of 34 MB"):
        plan_of_ones(backend, 4500)
    machine.reset(free_bytes=17_000_000, pool=(2_000_000, 0))
    with pytest.raises(DeviceMemoryError, match="cuda:0 has 19 MB free of 34 MB"):
        plan_of_ones(backend, 5000)


def test_the_limit_of_the_pool_is_kept_to(backend, machine):
    """``CUPY_GPU_MEMORY_LIMIT`` sets one."""
    machine.reset(pool=(0, 15_000_000))
    in_use = plan_of_ones(backend, 1000)
    with pytest.raises(DeviceMemoryError, match="cuda:0 has 11 MB free of 15 MB"):
        plan_of_ones(backend, 3000)
    in_use.close()
    assert plan_of_ones(backend, 3000) is not None


def test_each_path_is_reckoned_by_itself(backend, machine, monkeypatch):
    """What fits one of them need not fit another, and remedies are what the path that would then be found needs."""
    from fastnet.backends.cupy_backend import paths, wide

    monkeypatch.setattr(wide, "LEAST_FLOPS", 0)
    monkeypatch.setattr(paths, "PATHS", (wide,))
    machine.free_bytes = 16_000_000
    assert plan_of_ones(backend, 5000, "uint8").detail.startswith("first layer by cuBLAS on halves")  # 15 MB, not 25
    machine.free_bytes = 14_000_000
    with pytest.raises(
        DeviceMemoryError, match=r"about 15 MB .*: train on batches with batch_size=, or train on the CPU"
    ):
        plan_of_ones(backend, 5000, "uint8")
    monkeypatch.setattr(paths, "PATHS", ())
    with pytest.raises(DeviceMemoryError, match=r"about 25 MB .*: train on batches"):
        plan_of_ones(backend, 5000, "uint8")


def test_paths_with_kernels_of_their_own_need_samples_as_they_are(machine):
    problem = make_problem((200, 30, 4), 2000, storage="uint8", optimizer=Adam())
    needs = estimate_needs("tiny", problem.spec, problem.dataset)
    assert needs.total == 2000 * 200 + 5 * 4 * problem.parameters.flat.size


@pytest.mark.parametrize("storage", ["dense", "uint8"])
@pytest.mark.parametrize(
    "options", [{}, {"layer_sizes": (40, 8, 13), "output": "sigmoid", "task": "multiclass"}], ids=["labels", "targets"]
)
def test_narrow_path_needs_whole_rows_and_records(machine, backend, monkeypatch, options, storage):
    """Of two features, rows have sixteen."""
    from fastnet.backends.cupy_backend import chunks, narrow, paths

    monkeypatch.setattr(chunks, "STEPS_PER_CHUNK", 32)  # whose figures are left out of the reckoning
    monkeypatch.setattr(narrow, "MIN_NUMBERS", 0)
    monkeypatch.setattr(paths, "PATHS", (narrow,))
    problem = make_problem(**{"layer_sizes": (2, 3, 4), "n_samples": 5000, "storage": storage, **options})
    machine.memory = type(machine.memory)()
    plan = problem.plan(backend)
    needs = estimate_needs("narrow", problem.spec, problem.dataset).total
    assert "X, as" in plan.detail
    assert 0.9 * machine.memory.peak < needs < 1.01 * machine.memory.peak


FULL = [("cublas", "CUBLASError", 1), ("cublas", "CUBLASError", 3), ("runtime", "CUDARuntimeError", 2)]


def error_of(module, name, status):
    return getattr(getattr(sys.modules["cupy"].cuda, module), name)(status)


@pytest.mark.parametrize("error", FULL, ids=str)
def test_libraries_tell_in_their_own_way_that_memory_is_full(backend, machine, error):
    plan = plan_of_ones(backend, 100)
    machine.product_error = error_of(*error)
    with pytest.raises(DeviceMemoryError, match=r"status \d\. The device cuda:0 has .* MB free .*batch_size="):
        plan.run([0.1])


def test_module_that_finds_no_memory(backend, machine, monkeypatch):
    from fastnet.backends.cupy_backend import paths, tiny

    monkeypatch.setattr(paths, "PATHS", (tiny,))
    machine.compiler_error = error_of("driver", "CUDADriverError", 2)
    with pytest.raises(DeviceMemoryError, match=r"status 2\. The device"):
        make_problem((2, 3, 2)).plan(backend)


def test_other_errors_stay_what_they_are(backend, machine):
    plan = plan_of_ones(backend, 100)
    machine.product_error = error_of("cublas", "CUBLASError", 13)
    with pytest.raises(RuntimeError, match=r"status 13$") as caught:
        plan.run([0.1])
    assert caught.value is machine.product_error


def test_step_too_large_for_the_device(backend, machine):
    """What the reckoning did not foresee, as when someone else takes the memory meanwhile."""
    plan = plan_of_ones(backend, 100, hidden=3000)
    machine.free_bytes = 1_000_000
    with pytest.raises(DeviceMemoryError, match=r"allocating 1,200,000 bytes.* has 1 MB free .*batch_size="):
        plan.run([0.1])


def test_a_network_that_does_not_fit_loses_nothing(backend, machine):
    net = Network([1000, 4, 3], backend="cupy", seed=0)
    X, y = np.random.default_rng(0).random((5000, 1000), np.float32), np.arange(5000) % 3
    history = net.fit(X[:100], y[:100], n_steps=2)
    before = [array.copy() for array in (*net.weights, *net.biases)]
    machine.transfers.clear()
    machine.free_bytes = 15_000_000
    with pytest.raises(DeviceMemoryError, match=r"needs about 20 MB .* has 15 MB free"):
        net.fit(X, y, n_steps=10)
    assert machine.transfers == []
    assert net.history is history
    for array, earlier in zip((*net.weights, *net.biases), before, strict=True):
        np.testing.assert_array_equal(array, earlier)
    assert net.fit(X[:2000], y[:2000], n_steps=2).stop_reason == "completed"


def test_a_network_that_runs_out_of_memory_keeps_its_last_weights(backend, machine):
    net = Network([1000, 4, 3], backend="cupy", seed=0)
    X, y = np.random.default_rng(0).random((500, 1000), np.float32), np.arange(500) % 3
    expected = Network([1000, 4, 3], backend="cupy", seed=0)
    expected.fit(X, y, n_steps=3)

    def take_memory(run):
        machine.free_bytes = 1000 if run.step == 3 else machine.free_bytes

    with pytest.raises(DeviceMemoryError, match=r"allocating .* MB free"):
        net.fit(X, y, n_steps=10, validate_every=1, callbacks=[take_memory])
    np.testing.assert_array_equal(net.weights[0], expected.weights[0])
