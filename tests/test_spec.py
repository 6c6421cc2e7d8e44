from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet import SGD, Adam, SpecError
from fastnet.spec import ACTIVATIONS, HEADS, NetworkSpec, TrainingSpec


def network(**options):
    return NetworkSpec(**{"layer_sizes": (4, 3, 2), "activations": ("relu",)} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_sizes": (4,), "activations": ()}, "at least features and outputs"),
        ({"layer_sizes": (), "activations": ()}, "at least features and outputs"),
        ({"layer_sizes": (4, 0, 2)}, "at least 1"),
        ({"layer_sizes": (4, -3, 2)}, "at least 1"),
        ({"layer_sizes": (4, 2.5, 2)}, "whole numbers"),
        ({"layer_sizes": (4, 10**30, 2)}, "more weights than memory has addresses"),
        ({"layer_sizes": (4, True, 2)}, "whole numbers"),
        ({"layer_sizes": (4, "3", 2)}, "whole numbers"),
        ({"activations": ()}, "1 hidden layers need 1 activations, got 0"),
        ({"activations": ("relu", "relu")}, "got 2"),
        ({"activations": ("rleu",)}, "unknown activation 'rleu': did you mean 'relu'"),
        ({"activations": (None,)}, "unknown activation None"),
        ({"output": "sofmax"}, "unknown output 'sofmax': did you mean 'softmax'"),
        ({"loss": "crossentropy"}, "did you mean 'cross_entropy'"),
        ({"loss": "poisson"}, "no meaning for output 'softmax': use loss='cross_entropy' or 'squared_error'"),
        ({"loss": "gamma"}, "no meaning for output 'softmax'"),
        ({"output": "identity", "loss": "cross_entropy"}, "use loss='squared_error' or 'absolute_error'"),
        ({"output": "exp", "loss": "absolute_error"}, "use loss='poisson' or 'gamma' or 'squared_error'"),
        ({"reduction": "average"}, "unknown reduction 'average': Choose from mean, sum"),
        ({"dtype": "float16"}, "unknown dtype 'float16': did you mean 'float"),
        ({"precision": "fp16"}, "unknown precision 'fp16': Choose from fp32, tf32"),
        ({"precision": "tf32", "dtype": "float64"}, "dtype is 'float64': use dtype='float32', or leave precision"),
        ({"layer_sizes": (4, 3, 1)}, "softmax over one output is always 1"),
        ({"l2": -1e-9}, "l2 must be finite and not negative"),
        ({"l2": float("nan")}, "l2 must be finite"),
        ({"l2": float("inf")}, "l2 must be finite"),
        ({"l2": 0.1, "l2_averaged": True, "reduction": "sum"}, "l2_averaged=True needs reduction='mean'"),
        ({"input_scale": 0.0}, "input_scale must be finite and not zero"),
        ({"input_scale": float("nan")}, "input_scale must be finite"),
    ],
    ids=str,
)
def test_meaningless_networks_are_refused_with_what_to_do(options, message):
    with pytest.raises(SpecError, match=message):
        network(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"optimizer": "adam"}, "must be an SGD, Adam or AdamW object, got 'adam'"),
        ({"optimizer": Adam}, "object, got <class"),
    ],
    ids=str,
)
def test_meaningless_training_is_refused(options, message):
    with pytest.raises(SpecError, match=message):
        TrainingSpec(network(), **options)


def test_equal_specifications_are_one_key_and_different_ones_are_not():
    variants = [
        {},
        {"l2": 0.1},
        {"l2": 0.1, "l2_averaged": True},
        {"bias": False},
        {"dtype": "float64"},
        {"precision": "tf32"},
        {"reduction": "sum"},
        {"input_scale": 0.5},
        {"activations": ("tanh",)},
        {"loss": "squared_error"},
    ]
    keys = {TrainingSpec(network(**options), optimizer) for options in variants for optimizer in (SGD(), Adam())}
    assert len(keys) == 2 * len(variants)
    assert TrainingSpec(network(), SGD()) in keys
    assert hash(TrainingSpec(network(), SGD())) == hash(TrainingSpec(network(), SGD()))


def test_specifications_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        network().l2 = 1.0


def test_sizes_by_name():
    spec = network(layer_sizes=(5, 4, 3, 2), activations=("relu", "tanh"))
    assert (spec.n_features, spec.n_outputs, spec.n_layers) == (5, 2, 3)


def test_only_softmax_with_cross_entropy_takes_labels():
    takers = [
        (output, loss)
        for output, losses in HEADS.items()
        for loss in losses
        if network(output=output, loss=loss).takes_labels
    ]
    assert takers == [("softmax", "cross_entropy")]


def test_identity_output_keeps_all_but_the_head():
    spec = network(output="exp", loss="poisson", l2=0.5, input_scale=2.0, dtype="float64", bias=False)
    changed = spec.with_identity_output()
    assert (changed.output, changed.loss) == ("identity", "squared_error")
    assert dataclasses.replace(changed, output="exp", loss="poisson") == spec


def test_in_float64_there_is_one_precision():
    spec = network(precision="tf32", l2=0.5)
    assert spec.in_float64() == network(dtype="float64", l2=0.5)


@given(st.integers(1, 500), st.one_of(st.none(), st.integers(1, 600)))
def test_number_of_steps_counts_the_last_partial_batch(n_samples, batch_size):
    expected = 1 if batch_size is None else len(range(0, n_samples, batch_size))
    assert TrainingSpec(network(), batch_size=batch_size).n_steps(n_samples) == expected


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_can_be_named(activation):
    assert network(activations=(activation,)).activations == (activation,)
