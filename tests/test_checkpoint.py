"""Checkpoints: a fit that was stopped or killed, and resumed, ends with the same bits as one that never was."""

from __future__ import annotations

import contextlib
import dataclasses
import sys

import numpy as np
import pytest
from scipy import sparse

from fastnet import (
    SGD,
    Adam,
    AdamW,
    Callback,
    Checkpoint,
    CosineDecay,
    EarlyStopping,
    FileFormatError,
    Network,
    SpecError,
    persistence,
)
from fastnet.backends.array_plan import ArrayPlan
from fastnet.training import TrainingRun

generator = np.random.default_rng(0)
X = generator.normal(size=(80, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
WEIGHT = generator.random(80)


def classifier(**options):
    return Network([4, 8, 3], **{"backend": "numpy", "seed": 0} | options)


def flat(net):
    return np.concatenate([array.ravel() for array in [*net.weights, *net.biases]])


def record(history):
    """All that a history must share with that of an uninterrupted run."""
    return dataclasses.asdict(history) | {"seconds": None}


class Killed(BaseException):
    """The end of a process: what is on disk by then is all that is left."""


class StopAt(Callback):
    """Ctrl-C, or the end of the process, at a round, before its checkpoint is written."""

    def __init__(self, round_number, error):
        self._left = round_number
        self._error = error

    def on_round_end(self, run):
        self._left -= 1
        if self._left == 0:
            raise self._error


def fit_stopped_by(error, net, y, path, round_number, callbacks=(), **fit):
    """Begin a fit; a `Killed` that ends it is caught, as Ctrl-C is by the fit itself."""
    callbacks = [Checkpoint(path, every_seconds=0), StopAt(round_number, error), *callbacks]
    if error is Killed:
        with pytest.raises(Killed):
            net.fit(X, y, **fit, callbacks=callbacks)
    else:
        assert net.fit(X, y, **fit, callbacks=callbacks).stop_reason == "interrupted"


ERRORS = pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])


FITS = {
    "full-batch": {"optimizer": SGD(0.3), "n_steps": 60, "validate_every": 7},
    "momentum": {"optimizer": SGD(0.1, momentum=0.9, nesterov=True), "n_epochs": 8, "batch_size": 30},
    "adam": {"optimizer": Adam(0.01), "n_epochs": 8, "batch_size": 16},
    "adamw-cosine": {"optimizer": AdamW(CosineDecay(0.05)), "n_epochs": 8, "batch_size": 16},
    "weighted": {"optimizer": Adam(0.01), "n_epochs": 8, "batch_size": 7, "sample_weight": WEIGHT},
    "validated": {"optimizer": Adam(0.01), "n_epochs": 8, "batch_size": 16, "validation_fraction": 0.25},
    "ends-within-an-epoch": {"optimizer": Adam(0.01), "n_steps": 33, "batch_size": 16},
}


@ERRORS
@pytest.mark.parametrize("case", FITS)
def test_a_resumed_fit_ends_with_the_same_bits(case, error, tmp_path):
    path, expected = tmp_path / "fit", classifier()
    uninterrupted = expected.fit(X, LABELS, **FITS[case])
    for stopped_in_round in range(2, 8):
        fit_stopped_by(error, classifier(), LABELS, path, stopped_in_round, **FITS[case])
        resumed = classifier()
        history = resumed.fit(X, LABELS, **FITS[case], resume_from=path)
        np.testing.assert_array_equal(flat(resumed), flat(expected))
        assert record(history) == record(uninterrupted)


@ERRORS
def test_a_resumed_fit_ends_with_the_same_bits_on_every_backend(backend_name, error, tmp_path):
    fit = {"optimizer": Adam(0.01), "n_epochs": 6, "batch_size": 16}
    expected, first, resumed = (classifier(backend=backend_name) for _ in range(3))
    uninterrupted = expected.fit(X, LABELS, **fit)
    fit_stopped_by(error, first, LABELS, tmp_path / "fit", 4, **fit)
    history = resumed.fit(X, LABELS, **fit, resume_from=tmp_path / "fit")
    np.testing.assert_array_equal(flat(resumed), flat(expected))
    assert record(history) == record(uninterrupted)


class InterruptAtLine:
    """Ctrl-C as the n-th line of the modules that drive a fit is come to; counts the lines that are."""

    _MODULES = ("fastnet.training", "fastnet.callbacks", "fastnet.persistence")

    def __init__(self, n):
        self._n = n
        self.n_lines = 0

    def __enter__(self):
        self._earlier = sys.gettrace()
        sys.settrace(self._enter_function)
        return self

    def __exit__(self, *_):
        sys.settrace(self._earlier)

    def _enter_function(self, frame, event, _):
        return self._enter_line if frame.f_globals.get("__name__") in self._MODULES else None

    def _enter_line(self, frame, event, _):
        self.n_lines += event == "line"
        if event == "line" and self.n_lines == self._n:
            raise KeyboardInterrupt
        return self._enter_line


@pytest.mark.parametrize(
    "fit",
    [
        {"optimizer": Adam(0.1), "n_steps": 13, "validate_every": 4},
        {"optimizer": Adam(0.1), "n_steps": 7, "batch_size": 16},
    ],
    ids=["full-batch", "mini-batches"],
)
def test_a_fit_interrupted_anywhere_goes_on_from_its_last_step(fit, tmp_path):
    """What is written belongs together, whatever part of a step or of the end of a round had been done."""
    path, steps = tmp_path / "fit", set()
    noise = np.random.default_rng(1).integers(0, 3, 80)

    def train(**options):
        net, checkpoint = classifier(), Checkpoint(path, every_seconds=1e9)
        callbacks = [EarlyStopping(patience=2), checkpoint]
        history = net.fit(X, noise, **fit, validation_fraction=0.3, callbacks=callbacks, **options)
        return flat(net), record(history), checkpoint.resumed_at

    with InterruptAtLine(0) as lines:
        expected, uninterrupted, _ = train()
    for line in range(1, lines.n_lines, 29):
        path.unlink(missing_ok=True)
        interrupted = None
        with InterruptAtLine(line), contextlib.suppress(KeyboardInterrupt):  # before and after training it is raised
            _, interrupted, _ = train()
        resumed, history, step = train(resume_from=path if path.exists() else None)
        np.testing.assert_array_equal(resumed, expected)
        assert history == uninterrupted
        if interrupted and step is not None:
            assert step == interrupted["n_steps"]
            steps.add(step)
    assert len(steps) > 3, "it was interrupted in several steps"


def test_a_fit_interrupted_within_an_epoch_may_end_there(tmp_path):
    class Interrupt(Callback):
        def on_progress(self, run):
            if run.step == 3:
                raise KeyboardInterrupt

    fit = {"optimizer": SGD(0.1), "batch_size": 8}  # ten steps an epoch
    expected, resumed = classifier(), classifier()
    uninterrupted = expected.fit(X, LABELS, n_steps=3, **fit)
    classifier().fit(X, LABELS, n_steps=20, **fit, callbacks=[Checkpoint(tmp_path / "fit"), Interrupt()])
    history = resumed.fit(X, LABELS, n_steps=3, **fit, resume_from=tmp_path / "fit")
    np.testing.assert_array_equal(flat(resumed), flat(expected))
    assert record(history) == record(uninterrupted)


def test_the_losses_of_long_epochs_are_resumed_with_the_same_bits(backend_name, tmp_path):
    """Calls of the plan begin short and grow: a resumed epoch of 39 steps is cut otherwise than it would have been."""
    x = np.random.default_rng(1).normal(size=(310, 5))

    def fit(n_steps, **options):
        net = Network([5, 8, 1], output="identity", dtype="float64", backend=backend_name, seed=0)
        return net.fit(x, x[:, 0], optimizer=SGD(0.01), n_steps=n_steps, batch_size=8, **options)

    uninterrupted = fit(390)
    for n_steps in (4 * 39, 5 * 39 + 17):  # at the end of an epoch, and within one
        fit(n_steps, callbacks=[Checkpoint(tmp_path / "fit", every_seconds=0)])
        assert record(fit(390, resume_from=tmp_path / "fit")) == record(uninterrupted)


@pytest.mark.parametrize("stopped_in_round", [2, 5, 8])
@ERRORS
def test_early_stopping_goes_on_where_it_was(error, stopped_in_round, tmp_path):
    noise = np.random.default_rng(1).integers(0, 3, 80)
    fit = {"optimizer": SGD(0.5), "n_epochs": 100, "batch_size": 16, "validation_fraction": 0.3}
    expected, first, resumed = classifier(), classifier(), classifier()
    uninterrupted = expected.fit(X, noise, **fit, callbacks=[EarlyStopping(patience=8)])
    assert 9 < len(uninterrupted.validation_loss) < 100, "it neither stops at once nor never"
    fit_stopped_by(error, first, noise, tmp_path / "fit", stopped_in_round, [EarlyStopping(patience=8)], **fit)
    stopping = EarlyStopping(patience=8)
    history = resumed.fit(X, noise, **fit, callbacks=[stopping], resume_from=tmp_path / "fit")
    np.testing.assert_array_equal(flat(resumed), flat(expected))
    assert record(history) == record(uninterrupted)
    assert stopping.best == min(uninterrupted.validation_loss)


@ERRORS
def test_resuming_again_and_again_changes_nothing(error, tmp_path):
    path, fit = tmp_path / "fit", FITS["adam"]
    expected, net = classifier(), classifier()
    expected.fit(X, LABELS, **fit)
    for round_number in (3, 3, 2, 2):
        resume_from = path if path.exists() else None
        fit_stopped_by(error, classifier(), LABELS, path, round_number, **fit, resume_from=resume_from)
    history = net.fit(X, LABELS, **fit, resume_from=path)
    assert history.stop_reason == "completed"
    np.testing.assert_array_equal(flat(net), flat(expected))


def test_a_finished_fit_is_not_trained_again(tmp_path):
    fit, net, again = FITS["adam"], classifier(), classifier(seed=0)
    history = net.fit(X, LABELS, **fit, callbacks=[Checkpoint(tmp_path / "fit", every_seconds=1e9)])
    resumed = again.fit(X, LABELS, **fit, resume_from=tmp_path / "fit")
    np.testing.assert_array_equal(flat(again), flat(net))
    assert record(resumed) == record(history)


def test_more_steps_may_be_asked_for(tmp_path):
    longer = FITS["adam"] | {"n_epochs": 13}
    expected, net = classifier(), classifier()
    classifier().fit(X, LABELS, **FITS["adam"], callbacks=[Checkpoint(tmp_path / "fit")])
    uninterrupted = expected.fit(X, LABELS, **longer)
    history = net.fit(X, LABELS, **longer, resume_from=tmp_path / "fit")
    np.testing.assert_array_equal(flat(net), flat(expected))
    assert record(history) == record(uninterrupted)


def test_the_epochs_of_earlier_fits_count(tmp_path):
    """A second fit has orders of its own: its checkpoint must know that it was the second, and so must a third."""
    fit = FITS["adam"]
    expected, net = classifier(), classifier()
    for _ in range(3):
        expected.fit(X, LABELS, **fit)
    first = classifier()
    first.fit(X, LABELS, **fit)
    fit_stopped_by(KeyboardInterrupt, first, LABELS, tmp_path / "fit", 4, **fit)
    net.fit(X, LABELS, **fit, resume_from=tmp_path / "fit")
    net.fit(X, LABELS, **fit)
    np.testing.assert_array_equal(flat(net), flat(expected))


@ERRORS
def test_callbacks_of_ones_own_keep_their_state(error, tmp_path):
    class Counter(Callback):
        rounds = 0

        def on_round_end(self, run):
            self.rounds += 1

        def read_state(self):
            return {"rounds": np.array(self.rounds)}

        def write_state(self, state):
            self.rounds = int(state["rounds"])

    counter = Counter()
    fit_stopped_by(error, classifier(), LABELS, tmp_path / "fit", 5, [Counter()], **FITS["adam"])
    classifier().fit(X, LABELS, **FITS["adam"], callbacks=[counter], resume_from=tmp_path / "fit")
    assert counter.rounds == 8


@pytest.fixture
def checkpoint(tmp_path):
    fit_stopped_by(Killed, classifier(), LABELS, tmp_path / "fit", 4, **FITS["adam"])
    return tmp_path / "fit"


@pytest.mark.parametrize(
    ("difference", "net", "x", "fit"),
    [
        ("network", {"l2": 0.1}, X, {}),
        ("network", {"dtype": "float64"}, X, {}),
        ("network", {"precision": "tf32"}, X, {}),
        ("network", {"activation": "tanh"}, X, {}),
        ("seed", {"seed": 1}, X, {}),
        ("optimizer", {}, X, {"optimizer": Adam(0.02)}),
        ("optimizer", {}, X, {"optimizer": AdamW(0.01)}),
        ("batch_size", {}, X, {"batch_size": 20}),
        ("batch_size", {}, X, {"batch_size": None}),
        ("shuffle", {}, X, {"shuffle": False}),
        ("data", {}, X + 1e-6, {}),
        ("data", {}, sparse.csr_array(X), {}),
        ("data", {}, X, {"sample_weight": WEIGHT}),
        ("callbacks", {}, X, {"callbacks": [EarlyStopping()]}),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused_and_the_difference_told(checkpoint, difference, net, x, fit):
    resumed = classifier(**net)
    before = flat(resumed)
    with pytest.raises(FileFormatError, match=f"another fit, which differs in its .*{difference}"):
        resumed.fit(x, LABELS, **FITS["adam"] | fit, resume_from=checkpoint)
    np.testing.assert_array_equal(flat(resumed), before)


def test_a_checkpoint_from_before_networks_had_a_precision_and_rounds_were_interrupted_is_resumed(checkpoint):
    header, tensors = persistence.load_arrays(checkpoint, "fastnet.checkpoint/1")
    del header["identity"]["network"]["precision"], header["round_ended"]
    persistence.save_arrays(checkpoint, "fastnet.checkpoint/1", header, tensors)
    assert classifier().fit(X, LABELS, **FITS["adam"], resume_from=checkpoint).stop_reason == "completed"
    with pytest.raises(FileFormatError, match="differs in its network"):
        classifier(precision="tf32").fit(X, LABELS, **FITS["adam"], resume_from=checkpoint)


def test_fewer_steps_than_are_done_are_refused(checkpoint):
    with pytest.raises(FileFormatError, match="15 steps are done already, and 5 were asked for"):
        classifier().fit(X, LABELS, **FITS["adam"] | {"n_epochs": 1}, resume_from=checkpoint)


def test_damage_is_told_and_leaves_the_network_as_it_was(checkpoint):
    body = checkpoint.read_bytes()
    net, expected = classifier(), classifier()
    cut = [body[:length] for length in range(0, len(body), 301)]
    flipped = [body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :] for at in range(0, len(body), 97)]
    for damaged in cut + flipped:
        checkpoint.write_bytes(damaged)
        with pytest.raises(FileFormatError, match="fit: "):
            net.fit(X, LABELS, **FITS["adam"], resume_from=checkpoint)
    net.save(checkpoint)
    with pytest.raises(FileFormatError, match=r"this is a 'fastnet\.network/1' file"):
        net.fit(X, LABELS, **FITS["adam"], resume_from=checkpoint)
    np.testing.assert_array_equal(flat(net), flat(expected))
    for each in (net, expected):
        each.fit(X, LABELS, **FITS["adam"])
    np.testing.assert_array_equal(flat(net), flat(expected))


def test_a_checkpoint_that_cannot_be_written_ends_the_fit_and_leaves_the_last_one(checkpoint, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    before = checkpoint.read_bytes()
    monkeypatch.setattr(persistence.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        classifier().fit(X, LABELS, **FITS["adam"], callbacks=[Checkpoint(checkpoint)])
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(("every_seconds", "steps"), [(0, [*range(5, 41, 5)]), (1e9, [5, 40])])
def test_checkpoints_are_written_as_often_as_asked_and_at_the_end(every_seconds, steps, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(TrainingRun, "save_checkpoint", lambda run, path: written.append(run.step))
    classifier().fit(X, LABELS, **FITS["adam"], callbacks=[Checkpoint(tmp_path / "fit", every_seconds)])
    assert written == steps


def test_a_fit_that_ended_inside_an_epoch_goes_on_as_if_it_had_not(tmp_path):
    fit = {"optimizer": SGD(0.1), "batch_size": 30}  # three steps an epoch
    whole, again = classifier(), classifier()
    expected = whole.fit(X, LABELS, n_steps=9, **fit)
    first = again.fit(X, LABELS, n_steps=4, callbacks=[Checkpoint(tmp_path / "run", 0)], **fit)
    assert len(first.accuracy) == 2
    resumed = classifier()
    history = resumed.fit(
        X, LABELS, n_steps=9, callbacks=[Checkpoint(tmp_path / "run", 0)], resume_from=tmp_path / "run", **fit
    )
    assert np.array_equal(flat(resumed), flat(whole))
    assert history.loss == expected.loss
    assert history.accuracy == expected.accuracy
    assert history.learning_rate == expected.learning_rate


def test_more_steps_are_refused_where_the_learning_rate_depends_on_their_number(tmp_path):
    fit = {"optimizer": SGD(CosineDecay(0.1)), "callbacks": [Checkpoint(tmp_path / "run", 0)]}
    classifier().fit(X, LABELS, n_steps=4, **fit)
    with pytest.raises(FileFormatError, match="n_steps"):
        classifier().fit(X, LABELS, n_steps=8, resume_from=tmp_path / "run", **fit)


def test_a_resumed_history_says_what_runs_now(tmp_path, monkeypatch):
    with monkeypatch.context() as another_machine:
        another_machine.setattr(ArrayPlan, "detail", "as another machine does it")
        first = classifier().fit(X, LABELS, n_steps=3, callbacks=[Checkpoint(tmp_path / "run", 0)])
    assert first.backend_detail == "as another machine does it"
    resumed = classifier().fit(X, LABELS, n_steps=4, resume_from=tmp_path / "run")
    assert resumed.backend_detail == "array operations of NumPy, one call per operation"


def test_one_checkpoint_serves_several_fits(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run", every_seconds=1000)
    net = classifier()
    net.fit(X, LABELS, n_steps=3, callbacks=[checkpoint])
    (tmp_path / "run").unlink()
    seen = []
    net.fit(
        X,
        LABELS,
        n_steps=3,
        validate_every=1,
        callbacks=[checkpoint, lambda run: seen.append((tmp_path / "run").exists())],
    )
    assert seen == [False, True, True]


def test_a_schedule_of_ones_own_is_told_before_training_that_it_cannot_be_written_down(tmp_path):
    class Halves:
        def rates(self, steps, n_steps):
            return 0.5 ** (steps + 1.0)

    seen = []
    with pytest.raises(SpecError, match="cannot be written down"):
        classifier().fit(
            X, LABELS, optimizer=SGD(Halves()), n_steps=3, callbacks=[Checkpoint(tmp_path / "run"), seen.append]
        )
    assert seen == []
