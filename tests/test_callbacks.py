from __future__ import annotations

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import rich.console
import rich.text
from hypothesis import given
from hypothesis import strategies as st

from fastnet import SGD, Callback, Checkpoint, EarlyStopping, Network, ProgressBar, SpecError, callbacks
from fastnet.callbacks import as_callbacks
from fastnet.history import History

random = np.random.default_rng(0)
X = random.normal(size=(60, 4)).astype(np.float32)
LABELS = random.integers(0, 3, 60)  # noise: what is learned does not hold for the rest


def classifier():
    return Network([4, 20, 3], backend="numpy", seed=0)


def overfit(**options):
    """A fit whose validation loss falls at first and rises later."""
    net = classifier()
    history = net.fit(
        X[:40],
        LABELS[:40],
        X_val=X[40:],
        y_val=LABELS[40:],
        optimizer=SGD(0.3),
        **{"n_epochs": 60, "batch_size": 10} | options,
    )
    return net, history


class Recorder(Callback):
    def __init__(self):
        self.events = []

    def on_start(self, run):
        self.events.append(("start", run.step))

    def on_round_end(self, run):
        self.events.append(("round", run.step))

    def on_end(self, run):
        self.events.append(("end", run.step))


def test_a_callback_is_called_at_the_start_after_each_round_and_at_the_end():
    recorder = Recorder()
    classifier().fit(X, LABELS, n_steps=7, validate_every=3, callbacks=[recorder])
    assert recorder.events == [("start", 0), ("round", 3), ("round", 6), ("round", 7), ("end", 7)]
    recorder = Recorder()
    classifier().fit(X, LABELS, n_epochs=2, batch_size=25, callbacks=[recorder])
    assert recorder.events == [("start", 0), ("round", 3), ("round", 6), ("end", 6)]


def test_an_interrupt_is_told_before_the_end_with_the_parameters_of_the_last_step():
    """At the end of a fit the parameters may be replaced, and with them what a checkpoint must hold."""

    class Interrupted(Recorder):
        def on_progress(self, run):
            if run.step == 3:
                raise KeyboardInterrupt

        def on_interrupt(self, run):
            self.events.append(("interrupt", run.step))
            self.flat = run.parameters.flat.copy()

    class Zero(Callback):
        def on_end(self, run):
            run.parameters.flat[:] = 0

    recorder, expected = Interrupted(), classifier()
    classifier().fit(X, LABELS, n_steps=50, validate_every=50, callbacks=[Zero(), recorder])
    assert recorder.events == [("start", 0), ("interrupt", 3), ("end", 3)]
    expected.fit(X, LABELS, n_steps=3)
    np.testing.assert_array_equal(recorder.flat[: 4 * 20].reshape(4, 20), expected.weights[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_the_end_is_called_once_however_it_comes(error):
    def fail(run):
        raise error

    recorder = Recorder()
    try:
        classifier().fit(X, LABELS, n_steps=5, callbacks=[recorder, fail])
    except ZeroDivisionError:
        assert error is ZeroDivisionError
    assert [name for name, _ in recorder.events] == ["start", "round", "end"]


def test_progress_is_told_as_steps_go_by_and_never_backwards():
    class Progress(Callback):
        steps = ()

        def on_progress(self, run):
            self.steps += (run.step,)

    progress = Progress()
    classifier().fit(X, LABELS, n_steps=100, validate_every=50, callbacks=[progress])
    assert progress.steps == tuple(sorted(set(progress.steps)))
    assert progress.steps[-1] == 100
    assert len(progress.steps) > 2, "several times within a round"


def test_a_function_sees_the_run_and_stops_it_by_returning_true():
    seen = []

    def watch(run):
        seen.append((run.step, run.n_steps, len(run.history.loss), run.parameters.all_finite()))
        return run.step >= 6

    history = classifier().fit(X, LABELS, n_steps=20, validate_every=2, callbacks=[watch])
    assert seen == [(2, 20, 2, True), (4, 20, 4, True), (6, 20, 6, True)]
    assert history.n_steps == 6
    assert history.stop_reason == "stopped by watch"


def test_a_function_that_returns_something_else_than_true_stops_nothing():
    history = classifier().fit(X, LABELS, n_steps=3, callbacks=[lambda run: None, lambda run: 0])
    assert (history.n_steps, history.stop_reason) == (3, "completed")


def test_what_a_callback_leaves_in_the_parameters_at_the_end_is_the_network():
    class Zero(Callback):
        def on_end(self, run):
            run.parameters.flat[:] = 0

    net = classifier()
    net.fit(X, LABELS, n_steps=2, callbacks=[Zero()])
    assert not net.weights[0].any()


def test_checkpoints_come_last_and_the_others_in_their_order(tmp_path):
    first, second, stopping = Recorder(), Recorder(), EarlyStopping()
    checkpoint = Checkpoint(tmp_path / "fit")
    assert as_callbacks([first, checkpoint, stopping, second]) == [first, stopping, second, checkpoint]


@pytest.mark.parametrize("wrong", ["progress", 3, None])
def test_what_is_no_callback_is_refused(wrong):
    with pytest.raises(SpecError, match=r"a callback must be a fastnet\.callbacks\.Callback or a function, got"):
        as_callbacks([wrong])


# --- early stopping


def watch(figures, **options):
    """(rounds until it stops or None, index of the round whose parameters are left at the end)."""
    stopping = EarlyStopping(**options)
    history = History()
    run = SimpleNamespace(history=history, resumed=False, parameters=SimpleNamespace(flat=np.zeros(1)))
    stopping.on_start(run)
    stopped = None
    for index, figure in enumerate(figures):
        getattr(history, stopping.monitor).append(figure)
        run.parameters.flat[:] = index
        if stopping.on_round_end(run):
            stopped = index + 1
            break
    stopping.on_end(run)
    return stopped, int(run.parameters.flat[0])


@pytest.mark.parametrize(
    ("figures", "options", "expected"),
    [
        ([3, 2, 1, 2, 2, 2], {"patience": 2}, (5, 2)),
        ([3, 2, 1, 2, 0, 2], {"patience": 2}, (None, 4)),
        ([1, 1, 1], {"patience": 1}, (2, 0)),
        ([1, 0.95, 0.85, 0.84], {"patience": 1, "min_delta": 0.1}, (2, 0)),
        ([1, 0.95, 0.85, 0.84], {"patience": 2, "min_delta": 0.1}, (None, 2)),
        ([1, float("nan"), float("nan")], {"patience": 2}, (3, 0)),
        ([0.5, 0.6, 0.6, 0.4], {"patience": 2, "monitor": "validation_accuracy"}, (4, 1)),
        ([0.5, 0.6], {"patience": 2, "monitor": "accuracy"}, (None, 1)),
        ([0.5, 0.6, 0.7], {"patience": 2, "monitor": "loss"}, (3, 0)),
    ],
)
def test_early_stopping_waits_as_long_as_it_is_told_and_restores_the_best(figures, options, expected):
    assert watch(figures, **options) == expected


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.integers(1, 5))
def test_early_stopping_by_its_definition(figures, patience):
    """It stops at the first round that is `patience` rounds behind the best before it, the earliest of equals."""
    seen = [figures[: n + 1] for n in range(len(figures))]
    best_of = [past.index(min(past)) for past in seen]
    stops = [n + 1 for n in range(len(figures)) if n - best_of[n] >= patience]
    stopped = stops[0] if stops else None
    assert watch(figures, patience=patience) == (stopped, best_of[(stopped or len(figures)) - 1])


def test_early_stopping_leaves_the_weights_of_the_best_round():
    net, history = overfit(callbacks=[EarlyStopping(patience=5)])
    best = int(np.argmin(history.validation_loss))
    assert history.stop_reason == "stopped by EarlyStopping"
    assert best < len(history.validation_loss) - 1, "the last round must not be the best, for this to prove anything"
    assert len(history.validation_loss) == best + 1 + 5
    assert net.evaluate(X[40:], LABELS[40:])["loss"] == history.validation_loss[best]


def test_an_interrupt_leaves_the_best_weights_too():
    def interrupt(run):
        if run.step == 160:
            raise KeyboardInterrupt

    net, history = overfit(callbacks=[EarlyStopping(patience=1000), interrupt])
    assert history.stop_reason == "interrupted"
    assert min(history.validation_loss) < history.validation_loss[-1]
    assert net.evaluate(X[40:], LABELS[40:])["loss"] == min(history.validation_loss)


def test_early_stopping_starts_anew_with_each_fit():
    stopping = EarlyStopping(patience=5)
    _, first = overfit(callbacks=[stopping])
    _, again = overfit(callbacks=[stopping])
    assert again.validation_loss == first.validation_loss


def test_early_stopping_can_watch_the_training_loss():
    history = classifier().fit(
        X, LABELS, n_steps=50, callbacks=[EarlyStopping(patience=1, min_delta=10, monitor="loss")]
    )
    assert (history.n_steps, history.stop_reason) == (2, "stopped by EarlyStopping")


def test_early_stopping_without_anything_to_watch_is_told():
    with pytest.raises(SpecError, match="no validation_loss to monitor: pass X_val and y_val or validation_fraction"):
        classifier().fit(X, LABELS, n_steps=5, callbacks=[EarlyStopping()])
    with pytest.raises(SpecError, match="unknown monitor 'validation_los': did you mean 'validation_loss'"):
        EarlyStopping(monitor="validation_los")
    with pytest.raises(SpecError, match="patience must be a whole number of at least 1, got 0"):
        EarlyStopping(patience=0)


# --- progress


class Clock:
    """Seconds that go by at each look."""

    def __init__(self, per_look):
        self._now, self._per_look = 0.0, per_look

    def monotonic(self):
        self._now += self._per_look
        return self._now


def test_progress_off_a_terminal_is_a_line_every_ten_seconds(capsys, monkeypatch):
    class Looks(Callback):
        number = 0

        def on_progress(self, run):
            self.number += 1

    looks = Looks()
    monkeypatch.setattr(callbacks, "time", Clock(per_look=6.0))
    _, history = overfit(n_epochs=30, callbacks=[looks, ProgressBar()])
    output, errors = capsys.readouterr()
    lines = errors.splitlines()
    assert output == ""
    assert lines[0].startswith("step ")
    assert lines[-1].rpartition("held out ")[2] in {f"{accuracy:.4f}" for accuracy in history.validation_accuracy[-3:]}
    assert all(" of 120  loss " in line for line in lines[1:])
    assert len(lines) == looks.number // 2, "not yet at the first look after a line, but at the second"
    monkeypatch.setattr(callbacks, "time", Clock(per_look=0.0))
    overfit(n_epochs=30, callbacks=[ProgressBar()])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("interrupted", [False, True])
def test_progress_on_a_terminal_is_a_bar_that_goes_away(interrupted, monkeypatch):
    terminal, make_console = io.StringIO(), rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda stderr: make_console(file=terminal, force_terminal=True, width=120)
    )
    bar = ProgressBar()

    def interrupt(run):
        if interrupted and run.step == 80:
            raise KeyboardInterrupt

    overfit(n_epochs=30, callbacks=[bar, interrupt])
    drawn = terminal.getvalue()
    assert "training" in drawn
    assert f"{80 if interrupted else 120}/120" in drawn
    assert "held out" in drawn
    assert "\x1b[?25l" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.parametrize(
    ("width", "figures"),
    [
        (120, "loss 0.1234  accuracy 0.5678  held out 0.9012"),
        (83, "loss 0.1234  accuracy 0.5678  held out 0.9012"),
        (80, "loss 0.1234  held out 0.9012"),
        (60, "held out 0.9012"),
        (40, ""),
    ],
)
def test_counts_and_times_are_drawn_whole_however_narrow_the_terminal(width, figures, monkeypatch):
    terminal, make_console = io.StringIO(), rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda stderr: make_console(file=terminal, force_terminal=True, width=width)
    )
    history = History(loss=[0.1234], accuracy=[0.5678], validation_accuracy=[0.9012])
    run, bar = SimpleNamespace(step=154, n_steps=3000, history=history), ProgressBar()
    bar.on_start(run)
    bar.on_progress(run)
    bar.on_end(run)
    line = rich.text.Text.from_ansi(terminal.getvalue()).plain.splitlines()[-1]
    assert re.fullmatch(rf"training \S+ +154/3000 steps {figures} -:--:-- *", line), line


def test_every_callback_hears_of_the_end_even_if_one_fails():
    ended = []

    class Fails(Callback):
        def on_end(self, run):
            raise ZeroDivisionError

    class Ends(Callback):
        def on_end(self, run):
            ended.append(run.step)

    with pytest.raises(ZeroDivisionError):
        classifier().fit(X, LABELS, n_steps=3, callbacks=[Ends(), Fails(), Ends()])
    assert ended == [3, 3]


def test_a_callback_reads_in_the_history_how_far_the_run_is():
    seen = []
    history = classifier().fit(
        X, LABELS, n_steps=4, validate_every=2, callbacks=[lambda run: seen.append(run.history.n_steps)]
    )
    assert seen == [2, 4]
    assert history.seconds > 0
