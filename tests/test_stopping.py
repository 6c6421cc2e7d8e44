"""How a fit ends before its time: divergence, Ctrl-C, an error. The network keeps good weights each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from fastnet import SGD, Adam, DivergenceError, Network, StepDecay, training
from fastnet.optimizers import learning_rates

random = np.random.default_rng(0)
X = random.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def classifier(**options):
    return Network([4, 6, 3], **{"backend": "numpy", "seed": 0} | options)


def flat(net):
    return np.concatenate([array.ravel() for array in [*net.weights, *net.biases]])


N_STEPS = 45
DIVERGING = {
    # The squared error overflows some steps before the weights do.
    "loss-first": ({}, X, X[:, :3] * 100, SGD(1.0)),
    "momentum": ({}, X, X[:, :3] * 100, SGD(0.3, momentum=0.9)),
    "adam": ({}, X, X[:, :3], Adam(StepDecay(1e-3, factor=1e20, every=20))),
    # A saturated output hides infinite weights: the loss stays finite.
    "weights-alone": (
        {"output": "sigmoid", "loss": "squared_error", "layer_sizes": [4, 1], "init": "zeros"},
        100 + np.abs(X),
        np.ones(50),
        SGD(StepDecay(1e-6, factor=1e44, every=23)),
    ),
}


def diverging(case):
    options, x, y, optimizer = DIVERGING[case]
    net = Network(**{"layer_sizes": [4, 6, 3], "output": "identity", "backend": "numpy", "seed": 0} | options)
    return net, x, y, optimizer


def step_by_step(case):
    """(last finite weights, how many updates made them), each step a fit of its own; for optimizers without memory."""
    net, x, y, optimizer = diverging(case)
    for step, rate in enumerate(learning_rates(optimizer.learning_rate, np.arange(N_STEPS), N_STEPS)):
        before = flat(net)
        try:
            net.fit(x, y, n_steps=1, optimizer=SGD(rate))
        except DivergenceError:
            return before, step
    raise AssertionError("it did not diverge")


@pytest.mark.parametrize("case", DIVERGING)
@pytest.mark.parametrize("seconds", [0.0, 100.0], ids=["single-steps", "long-calls"])
def test_divergence_keeps_the_last_finite_weights(case, seconds, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_PER_CALL", seconds)
    net, x, y, optimizer = diverging(case)
    with pytest.raises(DivergenceError, match=r"diverged.* in step \d+ of 45.*smaller learning rate") as caught:
        net.fit(x, y, n_steps=N_STEPS, optimizer=optimizer, validate_every=N_STEPS)
    step = caught.value.step
    assert f"in step {step + 1} of" in str(caught.value)
    assert step > 1
    assert np.isfinite(flat(net)).all()
    assert np.isfinite(net.history.loss).all()
    assert len(net.history.loss) == net.history.n_steps == step
    so_far, *_ = diverging(case)
    so_far.fit(x, y, n_steps=step, optimizer=optimizer)
    np.testing.assert_array_equal(flat(net), flat(so_far))
    one_more, *_ = diverging(case)
    with pytest.raises(DivergenceError):
        one_more.fit(x, y, n_steps=step + 1, optimizer=optimizer)
    if case in ("loss-first", "weights-alone"):
        expected, expected_step = step_by_step(case)
        np.testing.assert_array_equal(flat(net), expected)
        assert step == expected_step


def test_divergence_in_the_middle_of_an_epoch_keeps_the_last_finite_weights(backend_name):
    x = np.where(np.arange(50)[:, None] == 33, 1e30, X).astype(np.float32)  # in the fourth batch of ten
    net, expected = (Network([4, 1], output="identity", backend=backend_name, seed=0) for _ in range(2))
    with pytest.raises(DivergenceError) as caught:
        net.fit(x, X[:, 0], n_epochs=3, batch_size=10, shuffle=False, optimizer=SGD(0.01, momentum=0.9))
    assert caught.value.step == 3
    expected.fit(x[:30], X[:30, 0], n_epochs=1, batch_size=10, shuffle=False, optimizer=SGD(0.01, momentum=0.9))
    np.testing.assert_array_equal(flat(net), flat(expected))
    assert net.predict(X[:3]).shape == (3,)


def test_an_interrupt_keeps_the_last_weights():
    def interrupt(run):
        if run.step == 6:
            raise KeyboardInterrupt

    net, expected = classifier(), classifier()
    history = net.fit(X, LABELS, n_steps=100, validate_every=3, callbacks=[interrupt], optimizer=SGD(0.5))
    expected.fit(X, LABELS, n_steps=6, optimizer=SGD(0.5))
    np.testing.assert_array_equal(flat(net), flat(expected))
    assert (history.stop_reason, history.n_steps, len(history.loss)) == ("interrupted", 6, 6)
    net.fit(X, LABELS, n_steps=1)


def test_an_error_in_a_callback_is_raised_and_the_weights_are_kept():
    def fail(run):
        raise ZeroDivisionError

    net, expected = classifier(), classifier()
    with pytest.raises(ZeroDivisionError):
        net.fit(X, LABELS, n_steps=4, validate_every=2, callbacks=[fail], optimizer=SGD(0.5))
    expected.fit(X, LABELS, n_steps=2, optimizer=SGD(0.5))
    np.testing.assert_array_equal(flat(net), flat(expected))


LONG_FIT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have had it ignored
import numpy as np
from fastnet import Network, SGD
x = np.random.default_rng(0).normal(size=(200, 10)).astype(np.float32)
net = Network([10, 50, 2], backend="numpy", seed=0)
tell = lambda run: print(run.step, flush=True) if run.step == 10 else None
history = net.fit(x, x[:, 0] > 0, n_steps=10_000_000, validate_every=10, optimizer=SGD(0.1), callbacks=[tell])
again = Network([10, 50, 2], backend="numpy", seed=0)
again.fit(x, x[:, 0] > 0, n_steps=history.n_steps, optimizer=SGD(0.1))
assert history.stop_reason == "interrupted", history.stop_reason
assert np.array_equal(net.weights[0], again.weights[0])
print("kept the weights")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another mechanism there")
def test_ctrl_c_ends_the_fit_and_not_the_program():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command, pipe = [sys.executable, "-c", LONG_FIT], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout.readline() == "10\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert output == "kept the weights\n"
    assert "interrupted after" in errors
