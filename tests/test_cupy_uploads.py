"""How data reach an emulated device: in slices, looked at once, and without waiting for what the device is doing."""

from __future__ import annotations

import emulated_cupy
import numpy as np
import pytest

from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.testing import make_problem

PATHS = ["tiny", "narrow", "batches", "wide", "generic"]
LAYER_SIZES = {"tiny": (5, 4, 3), "narrow": (9, 4, 3)}


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture
def backend(machine):
    found = create_backend("cupy")
    assert found.availability().ok
    return found


@pytest.fixture
def keep_to(monkeypatch):
    """A function that has all networks trained by one path, be it the slower choice or not."""
    from fastnet.backends.cupy_backend import narrow, paths, wide

    monkeypatch.setattr(narrow, "MIN_NUMBERS", 0)
    monkeypatch.setattr(wide, "LEAST_FLOPS", 0)
    all_paths = {paths.name_of(path): path for path in paths.PATHS}

    def keep(name):
        monkeypatch.setattr(paths, "PATHS", tuple(path for each, path in all_paths.items() if each == name))

    return keep


def problem_for(path, n_samples=200, **options):
    batch_size = 50 if path == "batches" else None
    return make_problem(LAYER_SIZES.get(path, (30, 20, 4)), n_samples, batch_size=batch_size, **options)


def losses(backend, problem, n_steps=3):
    size = problem.spec.batch_size
    order = None if size is None else np.arange(n_steps * size) % problem.dataset.n_samples
    return problem.plan(backend).run([0.1] * n_steps, order).loss


@pytest.mark.parametrize(
    ("path", "storage"),
    [(path, storage) for path in PATHS for storage in ("uint8", "dense") if (path, storage) != ("wide", "dense")]
    + [("generic", "csr")],
)
def test_large_arrays_are_uploaded_in_slices(backend, machine, keep_to, monkeypatch, path, storage):
    """So CuPy needs no page-locked memory as large as they are."""
    from fastnet.backends.cupy_backend import uploads

    keep_to(path)
    problem = problem_for(path, storage=storage, weighted=True)
    machine.transfers.clear()
    expected = losses(backend, problem)
    before = uploaded(machine)
    machine.transfers.clear()
    monkeypatch.setattr(uploads, "SLICE_BYTES", 400)
    np.testing.assert_array_equal(losses(backend, problem), expected)
    after = uploaded(machine)
    assert max(before) > max(after) == 400
    assert sum(before) == sum(after)


def uploaded(machine):
    return [size for direction, size in machine.transfers if direction == "to device"]


@pytest.mark.parametrize("path", ["narrow", "wide", "generic"])
def test_floats_are_searched_for_bytes_once(backend, machine, keep_to, monkeypatch, path):
    """By all paths together that have to know; the generic one does not, but is found after both others."""
    from fastnet.backends.cupy_backend import halves, narrow, paths, wide

    keep_to(path)
    problem = problem_for(path, storage="uint8")
    x = problem.dataset.x.astype(np.float32) + (path == "generic") * np.float32(0.5)
    if path == "generic":
        monkeypatch.setattr(paths, "PATHS", (narrow, wide))
        machine.shared_memory_per_block_optin = 10_000
    searched, search = [], halves._find_table
    monkeypatch.setattr(halves, "_find_table", lambda x: searched.append(x) or search(x))
    plan = backend.plan_training(problem.spec, problem.parameters, Dataset(x, problem.dataset.targets))
    assert {"narrow": "X, as bytes", "wide": "first layer", "generic": "products by"}[path] in plan.detail
    assert len(searched) == 1


@pytest.mark.parametrize("path", ["narrow", "batches"])
def test_runs_are_ordered_where_each_thread_has_a_default_stream(backend, machine, keep_to, path):
    """With ``CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1``: the emulation refuses work that nothing waits for."""
    keep_to(path)
    problem = problem_for(path)
    expected = losses(backend, problem, 43)
    machine.has_default_stream_per_thread = True
    np.testing.assert_array_equal(losses(backend, problem, 43), expected)


@pytest.mark.parametrize("path", ["tiny", "batches", "generic"])
def test_order_is_uploaded_while_the_device_is_at_work(backend, machine, keep_to, path):
    keep_to(path)
    problem = make_problem((2, 3, 2), 20_000, batch_size=10_000)
    plan, order = problem.plan(backend), np.random.default_rng(0).permutation(20_000)
    plan.run([0.1] * 2, order)
    before = machine.n_waits
    plan.run([0.1] * 2, order)
    assert machine.n_waits == before
