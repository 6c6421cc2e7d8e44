"""`precision`: "tf32" permits CuPy's products to round their factors to TF32, and "fp32" never does."""

from __future__ import annotations

import sys
from dataclasses import replace

import emulated_cupy
import numpy as np
import pytest

from fastnet import Network
from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.registry import create_backend
from fastnet.testing import Problem, make_problem, oracle

TRUE_FLOAT32, TF32, FLOAT64 = 68, 77, 70  # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_64F

SIZES = (60, 40, 30, 5)


@pytest.fixture
def machine(monkeypatch):
    """With the generic path alone, whose products are cuBLAS's."""
    with emulated_cupy.installed() as machine:
        from fastnet.backends.cupy_backend import paths

        monkeypatch.setattr(paths, "PATHS", ())
        yield machine


def gradient_error(problem: Problem) -> float:
    """Of the whole gradient, relative to the reference's in float64, in the 2-norm."""
    _, actual = problem.plan(create_backend("cupy")).loss_and_gradients()
    _, expected = oracle(problem).plan(NumpyBackend()).loss_and_gradients()
    return float(np.linalg.norm(actual.flat - expected.flat) / np.linalg.norm(expected.flat))


@pytest.mark.parametrize("batch_size", [None, 20])
def test_every_product_of_a_step_is_made_as_asked(machine, batch_size):
    for precision, arithmetic in (("fp32", TRUE_FLOAT32), ("tf32", TF32)):
        problem = make_problem(SIZES, 50, precision=precision, batch_size=batch_size)
        plan = problem.plan(create_backend("cupy"))
        assert ("in TF32" in plan.detail) == (precision == "tf32")
        machine.products.clear()
        plan.run([0.1], None if batch_size is None else np.arange(20))
        plan.loss_and_gradients()
        assert machine.products == [arithmetic] * 16  # for three layers, three forward, and five backward
        machine.products.clear()
        create_backend("cupy").predict(problem.spec.network, problem.parameters, problem.dataset.x)
        assert machine.products == [arithmetic] * 3


def test_products_in_float64_are_float64(machine):
    make_problem(SIZES, 50, dtype="float64").plan(create_backend("cupy")).run([0.1])
    assert machine.products == [FLOAT64] * 8


def test_the_environment_permits_nothing(machine, monkeypatch):
    """``CUPY_TF32`` speaks to ``cupy.matmul``, which must have no part in a step."""

    def matmul(*arguments, **options):
        raise AssertionError("cupy.matmul rounds to TF32 where the environment says so")

    backend, problem = create_backend("cupy"), make_problem(SIZES, 50, batch_size=20)
    assert backend.availability().ok  # which is found by cupy.matmul, of small whole numbers
    machine.products.clear()
    monkeypatch.setenv("CUPY_TF32", "1")
    monkeypatch.setattr(sys.modules["cupy"], "matmul", matmul)
    monkeypatch.setattr(sys.modules["cupy"].ndarray, "__matmul__", matmul)
    problem.plan(backend).run([0.1, 0.1, 0.1], np.arange(50))
    backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
    assert set(machine.products) == {TRUE_FLOAT32}


def test_rounded_factors_show_in_the_gradient_and_only_where_asked_for(machine):
    exact = make_problem(SIZES, 50)
    rounded = replace(exact, spec=replace(exact.spec, network=replace(exact.spec.network, precision="tf32")))
    assert gradient_error(exact) < 1e-6
    assert 1e-5 < gradient_error(rounded) < 2e-3


def test_a_device_without_tf32_computes_in_true_float32(machine):
    machine.reset(compute_capability="75")
    plan = make_problem(SIZES, 50, precision="tf32").plan(create_backend("cupy"))
    plan.run([0.1])
    assert "TF32" not in plan.detail
    assert set(machine.products) == {TRUE_FLOAT32}


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
def test_on_a_cpu_the_permission_changes_no_bit(backend_name):
    problem = make_problem(SIZES, 50)
    nets = [Network(SIZES, precision=precision, backend=backend_name, seed=0) for precision in ("fp32", "tf32")]
    for net in nets:
        net.fit(problem.dataset.x, problem.dataset.targets, n_steps=5)
    for one, other in zip(*(net.weights + net.biases for net in nets), strict=True):
        np.testing.assert_array_equal(one, other)
