"""The names people's scripts rely on."""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import fastnet
from fastnet import Network
from fastnet.backends.interface import Backend, TrainingPlan
from fastnet.testing import make_problem

PUBLIC = {
    "Network", "History", "available_backends",
    "MLPClassifier", "MLPRegressor",
    "SGD", "Adam", "AdamW", "CosineDecay", "ExponentialDecay", "InverseScaling", "StepDecay",
    "Callback", "Checkpoint", "EarlyStopping", "ProgressBar",
    "BackendUnavailableError", "DataError", "DeviceMemoryError", "DivergenceError", "MissingPackageError",
    "FastnetError", "FileFormatError", "SpecError",
    "UnsupportedSpecError",
}  # fmt: skip


def test_all_is_what_is_promised():
    assert set(fastnet.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(fastnet, name).__doc__


def test_arguments_of_network():
    assert list(inspect.signature(Network).parameters) == [
        "layer_sizes", "activation", "output", "loss", "bias", "reduction", "l2", "l2_averaged", "input_scale", "dtype",
        "precision", "init", "bias_init", "backend", "device", "n_threads", "seed",
    ]  # fmt: skip
    assert list(inspect.signature(Network.fit).parameters) == [
        "self", "X", "y", "optimizer", "n_steps", "n_epochs", "batch_size", "sample_weight", "X_val", "y_val",
        "validation_fraction", "validate_every", "shuffle", "callbacks", "resume_from",
    ]  # fmt: skip


def test_public_names_are_not_about_how():
    words = re.compile("fused|jit|graph|tile|kernel", re.IGNORECASE)
    members = {name for item in (Network, fastnet.History) for name in vars(item) if not name.startswith("_")}
    fields = {field.name for field in dataclasses.fields(fastnet.History)}
    assert not [name for name in PUBLIC | members | fields if words.search(name)]


@pytest.mark.parametrize("protocol", [Backend, TrainingPlan])
def test_backends_have_the_methods_of_the_seam(backend, protocol):
    subject = backend if protocol is Backend else make_problem().plan(backend)
    for name, method in vars(protocol).items():
        if name.startswith("_") or not callable(method):
            continue
        promised = list(inspect.signature(method).parameters)[1:]
        assert list(inspect.signature(getattr(subject, name)).parameters) == promised, name
    for name, member in vars(protocol).items():
        if isinstance(member, property):
            assert isinstance(getattr(type(subject), name), property), name


def test_version_is_told_once():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == fastnet.__version__
