from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from fastnet import available_backends
from fastnet.backends.registry import create_backend

# Compiled kernels make the first example of a property slow, which says nothing about the property.
settings.register_profile("fastnet", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("fastnet")

BACKENDS = ("numpy", "numba", "cupy")


@pytest.fixture(params=BACKENDS)
def backend_name(request):
    """Name of each backend that can run here; `FASTNET_REQUIRE` turns a skip into a failure."""
    require_or_skip(request.param)
    return request.param


@pytest.fixture(params=BACKENDS)
def backend(request):
    require_or_skip(request.param)
    return create_backend(request.param)


def require_or_skip(name):
    availability = available_backends()[name]
    if availability.ok:
        return
    if name in os.environ.get("FASTNET_REQUIRE", "").split(","):
        pytest.fail(f"backend {name} is required and cannot run here: {availability.reason}")
    pytest.skip(f"backend {name}: {availability.reason}")


@pytest.fixture
def mnist_directory():
    """Folder of the MNIST files; tests that want them are skipped without."""
    directory = os.environ.get("FASTNET_DATA")
    if not directory or not Path(directory).is_dir():
        pytest.skip("set FASTNET_DATA to a folder with the MNIST files")
    return Path(directory)


@pytest.fixture(autouse=True)
def _no_settings_from_the_environment(monkeypatch):
    """Tests choose backends and threads themselves."""
    monkeypatch.delenv("FASTNET_BACKEND", raising=False)
    monkeypatch.delenv("FASTNET_NUM_THREADS", raising=False)
