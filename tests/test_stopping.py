"""How a fit ends before its time: divergence, Ctrl-C, an error. The network keeps good weights each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from fastnet import SGD, DivergenceError, Network, StepDecay, training

random = np.random.default_rng(0)
X = random.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def classifier(**options):
    return Network([4, 6, 3], **{"backend": "numpy", "seed": 0} | options)


def flat(net):
    return np.concatenate([array.ravel() for array in [*net.weights, *net.biases]])


def step_by_step(net, x, y, optimizer, n_steps):
    """The last finite weights before the first loss that is not, each step a fit of its own; only for plain SGD."""
    for step in range(n_steps):
        before = flat(net)
        rate = optimizer.learning_rate
        rate = rate if isinstance(rate, float) else float(rate.rates(np.array([step]), n_steps)[0])
        try:
            net.fit(x, y, n_steps=1, optimizer=SGD(rate))
        except DivergenceError:
            return before, step
    raise AssertionError("it did not diverge")


DIVERGING = {
    # The squared error overflows some steps before the weights do.
    "loss-first": ({"output": "identity"}, X, X[:, :3] * 100, SGD(1.0)),
    # A saturated unit hides its infinite weights: the loss stays finite.
    "weights-alone": ({"activation": "tanh"}, np.abs(X) + 1, LABELS, SGD(StepDecay(1e-3, factor=1e42, every=23))),
}


@pytest.mark.parametrize("case", DIVERGING)
@pytest.mark.parametrize("seconds", [0.0, 0.2, 100.0])
def test_divergence_keeps_the_last_finite_weights(case, seconds, monkeypatch):
    options, x, y, optimizer = DIVERGING[case]
    expected, bad_step = step_by_step(classifier(**options), x, y, optimizer, 60)
    monkeypatch.setattr(training, "SECONDS_PER_CALL", seconds)
    net = classifier(**options)
    with pytest.raises(
        DivergenceError, match=f"diverged.* in step {bad_step + 1} of 60.*smaller learning rate"
    ) as caught:
        net.fit(x, y, n_steps=60, optimizer=optimizer)
    assert caught.value.step == bad_step > 0
    assert np.isfinite(flat(net)).all()
    np.testing.assert_array_equal(flat(net), expected)
    assert np.isfinite(net.history.loss).all()
    assert len(net.history.loss) == net.history.n_steps == bad_step


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
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output == "kept the weights\n"
    assert "interrupted after" in errors
