"""What is missing for a GPU is told, with the remedy, and without importing CuPy before it is asked for."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys

import emulated_cupy
import pytest

from fastnet import Network
from fastnet.backends.registry import choose_backend, create_backend
from fastnet.errors import BackendUnavailableError
from fastnet.testing import make_problem


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


def reason(device="auto"):
    availability = create_backend("cupy", device).availability()
    assert not availability.ok
    return availability.reason


def test_available(machine):
    machine.reset(n_devices=2)
    availability = create_backend("cupy").availability()
    assert availability.ok
    assert availability.devices == ("cuda:0 Emulated GPU 0", "cuda:1 Emulated GPU 1")
    assert "cuda:0 Emulated GPU 0" in availability.reason


def test_chosen_device_comes_first(machine):
    machine.reset(n_devices=2)
    availability = create_backend("cupy", "cuda:1").availability()
    assert availability.devices == ("cuda:1 Emulated GPU 1", "cuda:0 Emulated GPU 0")


def test_cupy_is_not_installed(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find_spec(name))
    assert "not installed: pip install 'cupy-cuda13x[ctk]" in reason()


def test_import_of_cupy_fails(monkeypatch):
    """CuPy makes its cache folder on import; where it cannot, that is no ImportError."""

    class Unwritable:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "cupy":
                raise PermissionError(13, "Permission denied: '/home/someone/.cupy'")

    with monkeypatch.context() as changed:  # all is as it was before the emulation is taken away
        changed.delitem(sys.modules, "cupy")
        changed.setattr(importlib.util, "find_spec", lambda name: name)
        changed.setattr(sys, "meta_path", [Unwritable, *sys.meta_path])
        message = reason()
    assert "PermissionError" in message
    assert "CUPY_CACHE_DIR" in message


def test_no_driver(machine):
    machine.reset(driver_error=RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"))
    message = reason()
    assert "cudaErrorInsufficientDriver" in message
    assert "driver" in message.partition(". ")[2]
    assert "backend='numba'" in message


def test_driver_without_a_device(machine):
    machine.reset(n_devices=0)
    assert "CUDA_VISIBLE_DEVICES" in reason()


@pytest.mark.parametrize(("n_devices", "there_is"), [(1, "there is one device"), (2, "there are 2 devices")])
def test_device_that_does_not_exist(machine, n_devices, there_is):
    machine.reset(n_devices=n_devices)
    message = reason(f"cuda:{n_devices}")
    assert f"device 'cuda:{n_devices}' does not exist: {there_is}, cuda:0 Emulated GPU 0" in message


@pytest.mark.parametrize("backend", ["cupy", "auto"])
def test_a_network_on_a_device_that_does_not_exist_says_how_many_there_are(backend):
    with pytest.raises(BackendUnavailableError, match=r"'cuda:1' does not exist: there is one device, cuda:0 Emulated"):
        Network([2, 2], backend=backend, device="cuda:1", seed=0).fit([[0, 1]], [1], n_steps=1)


def test_no_compiler(machine):
    machine.reset(compiler_error=RuntimeError("Failure finding libnvrtc.so: no such file\nsearched for in ..."))
    message = reason()
    assert "RuntimeError: Failure finding libnvrtc.so: no such file. " in message
    assert "cupy-cuda13x[ctk]" in message


def test_no_cublas(machine):
    machine.reset(product_error=ImportError("libcublas.so.13: cannot open shared object file"))
    assert "libcublas.so.13" in reason()


def test_wrong_results(machine, monkeypatch):
    cupy = sys.modules["cupy"]
    monkeypatch.setattr(cupy, "asnumpy", lambda array: array.get() + 1)
    assert "wrong result, [[9.0, 13.0], [25.0, 45.0]]" in reason()


def test_devices_are_tried_once(machine):
    create_backend("cupy").availability()
    before = machine.n_operations
    create_backend("cupy").availability()
    assert machine.n_operations == before > 0


def test_unavailable_backend_refuses_to_work(machine):
    machine.reset(n_devices=0)
    problem = make_problem()
    with pytest.raises(BackendUnavailableError, match="cannot run here: no usable CUDA device"):
        problem.plan(create_backend("cupy"))
    with pytest.raises(BackendUnavailableError, match="no usable CUDA device"):
        create_backend("cupy").predict(problem.spec.network, problem.parameters, problem.dataset.x)
    with pytest.raises(BackendUnavailableError, match="no usable CUDA device"):
        choose_backend("cupy")


def test_cpu_is_not_for_cupy():
    with pytest.raises(BackendUnavailableError, match="backend='numba'"):
        create_backend("cupy", "cpu")


def test_number_of_threads_is_no_error_but_noted(caplog):
    """FASTNET_NUM_THREADS may be set for all backends."""
    with caplog.at_level(logging.DEBUG, logger="fastnet"):
        assert create_backend("cupy", "cuda", n_threads=4).availability().ok
    assert "n_threads=4 has no effect" in caplog.text


def test_backend_is_made_and_asked_without_importing_cupy():
    script = """
import sys
from fastnet.backends.registry import create_backend
backend = create_backend("cupy", "cuda:1")
assert not {"cupy", "scipy", "sklearn"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
