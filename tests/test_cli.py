"""Commands as people type them, through click's runner, and once each as a real process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.text import Text

from fastnet import Network
from fastnet.backends.array_plan import ArrayPlan
from fastnet.backends.interface import Availability
from fastnet.benchmarking import Comparison, Measurement, StepCost
from fastnet.cli import main
from fastnet.recipes import load_recipe, recipe_names
from fastnet.workloads import WORKLOADS

CLOSED = Path("/sys/kernel")  # where Linux lets nobody make a file, not even root


@pytest.fixture
def run():
    def invoke(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def _no_training(monkeypatch):
    monkeypatch.setattr(Network, "fit", lambda *_, **__: pytest.fail("this was to be told before training"))


@pytest.fixture
def csv(tmp_path):
    """Two well separated clouds, labelled with words, 40 samples."""
    random = np.random.default_rng(0)
    path = tmp_path / "clouds.csv"
    lines = ["width,height,kind"]
    for index in range(40):
        x, y = random.normal(size=2) * 0.1 + (index % 2)
        lines.append(f"{x:.4f},{y:.4f},{'left' if index % 2 else 'right'}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "clouds.toml"
    path.write_text(
        """
        [recipe]
        title = "Two clouds"
        [data]
        source = "file"
        path = "clouds.csv"
        target = "kind"
        [network]
        layer_sizes = ["auto", 4, "auto"]
        activation = "tanh"
        [optimizer]
        name = "sgd"
        learning_rate = 0.5
        [training]
        n_steps = 100
        seed = 1
        """
    )
    return path


def test_train_digits_reaches_its_figure(run):
    output = run("train", "digits", "--backend", "numpy").stdout
    held_out = next(line for line in output.splitlines() if line.startswith("held-out"))
    assert float(held_out.split()[-1]) >= 0.95
    assert "reached" in output


def test_train_prints_figures_for_machines(run):
    figures = json.loads(run("train", "or-gate", "--backend", "numpy", "--json").stdout)
    assert figures["backend"] == "numpy"
    assert "NumPy" in figures["backend_detail"]
    assert figures["training"]["accuracy"] == 1.0
    assert figures["first_loss"] > figures["last_loss"]


def test_sum_costs_what_the_tutorial_says_after_the_first_step(run):
    output = run("train", "sum", "--backend", "numpy", "--dtype", "float64", "--steps", 2).stdout
    assert "955.628047 after the first step" in output


def test_own_recipe_and_own_data_from_training_to_prediction(run, recipe, csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = tmp_path / "net.safetensors"
    run("train", recipe, "--backend", "numpy", "--data", csv, "--target", "kind", "--save", network)

    figures = json.loads(run("evaluate", network, "--data", csv, "--target", "kind", "--json").stdout)
    assert figures["accuracy"] == 1.0
    predicted = run("predict", network, "--data", csv, "--target", "kind").stdout.split()
    assert predicted == ["right", "left"] * 20

    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(line.rsplit(",", 1)[0] for line in csv.read_text().splitlines()))
    assert run("predict", network, "--data", bare).stdout.split() == predicted
    rows = run("predict", network, "--data", bare, "--probabilities").stdout.split()
    probabilities = np.array([[float(value) for value in row.split(",")] for row in rows])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == [1, 0] * 20).all()  # classes in the order of their names


def assert_same_network(path, other_path):
    network, other = Network.load(path), Network.load(other_path)
    for a, b in zip(network.weights + network.biases, other.weights + other.biases, strict=True):
        assert np.array_equal(a, b)


def test_killed_in_between_and_resumed_ends_with_the_same_network(run, tmp_path):
    options = ["--backend", "numpy", "--seed", 3, "--batch-size", 100]
    run("train", "digits", *options, "--epochs", 6, "--save", tmp_path / "whole.safetensors")
    checkpoint = tmp_path / "run.checkpoint"
    run("train", "digits", *options, "--epochs", 2, "--checkpoint", checkpoint)
    resumed = ["--checkpoint", checkpoint, "--resume", "--save", tmp_path / "resumed.safetensors"]
    run("train", "digits", *options, "--epochs", 6, *resumed)
    assert_same_network(tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors")


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C once, in the fifth call of the plan."""
    train, calls = ArrayPlan.run, []

    def interrupt(plan, *arguments):
        calls.append(plan)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(plan, *arguments)

    monkeypatch.setattr(ArrayPlan, "run", interrupt)


@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_and_resumed_ends_with_the_same_network(run, tmp_path):
    checkpoint, options = tmp_path / "run.ckpt", ["--backend", "numpy", "--batch-size", 100, "--epochs", 3]
    stopped = run("train", "digits", *options, "--checkpoint", checkpoint, code=130)
    step = int(re.search(rf"interrupted at step (\d+); add --resume to go on from {checkpoint}\n", stopped.stderr)[1])
    assert step > 1
    resumed = run("train", "digits", *options, "--checkpoint", checkpoint, "--resume", "--save", tmp_path / "resumed")
    assert f"resumed   at step {step} from {checkpoint}\n" in resumed.stdout
    run("train", "digits", *options, "--save", tmp_path / "whole")
    assert_same_network(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_says_that_nothing_was_saved_where_nothing_was(run, caplog):
    message = run("train", "digits", "--backend", "numpy", code=130).stderr
    assert "nothing was saved: add --save FILE or --checkpoint FILE" in message
    assert "kept" not in message + caplog.text


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_says_where_the_network_is(run, tmp_path):
    path = tmp_path / "net.safetensors"
    message = run("train", "digits", "--backend", "numpy", "--quiet", "--save", path, code=130).stderr
    assert f"the network is saved as it was then in {path}" in message
    assert Network.load(path).spec.n_features == 64


def test_what_was_resumed_is_told(run, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    train = ["train", "or-gate", "--backend", "numpy"]
    resume = [*train, "--checkpoint", checkpoint, "--resume"]
    assert f"resumed   nothing: {checkpoint} was not there\n" in run(*resume, "--steps", 50).stdout
    figures = json.loads(run(*resume, "--steps", 70, "--json").stdout)
    assert (figures["resumed_at"], figures["n_steps"]) == (50, 70)
    assert json.loads(run(*train, "--steps", 5, "--json").stdout)["resumed_at"] is None
    assert "resumed" not in run(*train, "--steps", 5, "--checkpoint", tmp_path / "another.ckpt").stdout


@pytest.mark.usefixtures("_no_training")
def test_a_file_that_exists_is_no_new_checkpoint(run, tmp_path):
    """It may be the only state of a long run, or a network that was given by mistake."""
    (tmp_path / "run.ckpt").write_text("of a long run")
    result = run("train", "or-gate", "--backend", "numpy", "--checkpoint", tmp_path / "run.ckpt", code=2)
    assert f"{tmp_path / 'run.ckpt'} exists: add --resume to go on from it, or remove it" in result.stderr
    assert (tmp_path / "run.ckpt").read_text() == "of a long run"


def test_pictures_are_drawn(run, tmp_path):
    run("train", "moons", "--backend", "numpy", "--steps", 200, "--plot", tmp_path / "out", "-q")
    assert len(list((tmp_path / "out").glob("*.png"))) >= 3
    run("train", "moons", "--backend", "numpy", "--steps", 20, "--plot", tmp_path / "curve.png", "-q")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_backends_tells_what_can_run_and_why(run, monkeypatch):
    reason = "no driver: install fastnet[cuda13]"
    found = {"numpy": Availability(True, "fine", ("cpu",)), "cupy": Availability(False, reason)}
    monkeypatch.setattr("fastnet.backends.registry.available_backends", lambda: found)
    assert json.loads(run("backends", "--json").stdout)["cupy"] == {
        "ok": False,
        "reason": reason,
        "devices": [],
    }
    assert "fastnet[cuda13]" in run("backends").stdout  # the brackets are no markup


def test_recipes_are_listed(run):
    output = run("recipes").stdout
    for name in ("digits", "mnist-16", "mnist-10", "deep-sigmoid", "moons", "or-gate", "sum"):
        assert name in output


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_is_printed_and_saved_is_the_same(run, name, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(run("recipes", name).stdout)
    assert replace(load_recipe(path), name=name) == load_recipe(name)


def test_bench_lists_its_workloads(run):
    output = run("bench", "--help").stdout
    for workload in WORKLOADS.values():
        assert re.search(rf"^  {workload.name} +{re.escape(workload.title[:20])}", output, re.MULTILINE)


LONG = Measurement(
    workload="tabular-adam",
    backend="scikit-learn",
    device="cpu",
    dtype="float32",
    n_threads=16,
    detail="",
    data_source="synthetic",
    n_samples=78_027_123,
    n_epochs=1,
    n_steps=8_123,
    seconds=(1.0,),
    first_call_seconds=123.45,
    loss=0.261078,
    expected_loss=0.261079,
    agrees=True,
    step_cost=StepCost(1, 1, 1),
)
FIGURES = ["tabular-adam", "float32", "16", "0.1231", "0.1231", "78,027,123", "123.45", "0.261078"]


@pytest.fixture
def long_names(monkeypatch):
    monkeypatch.setattr("fastnet.benchmarking.compare", lambda *_, **__: Comparison([LONG], {}))


@pytest.mark.usefixtures("long_names")
@pytest.mark.parametrize("width", [60, 80, 200])
def test_bench_cuts_no_figure_however_narrow_the_terminal(run, width, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    table = Text.from_ansi(run("bench", "moons", "--backend", "numpy").stdout).plain
    lines = table.splitlines()[:6]
    row = next(line.split() for line in lines if line.startswith(LONG.workload))
    assert [*row[:1], *row[-7:]] == FIGURES
    assert "…" not in table
    if width >= 80:
        assert max(map(len, lines)) <= width


@pytest.mark.usefixtures("long_names")
def test_bench_writes_whole_lines_where_there_is_no_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert [FIGURES[0], "scikit-learn", "(cpu)", *FIGURES[1:]] in [
        line.split() for line in run("bench", "moons", "--backend", "numpy").stdout.splitlines()
    ]


def test_bench_shows_the_loss_expected_where_another_was_reached(run, monkeypatch):
    comparison = Comparison([replace(LONG, agrees=False)], {})
    monkeypatch.setattr("fastnet.benchmarking.compare", lambda *_, **__: comparison)
    output = run("bench", "moons", "--backend", "numpy", code=1).stdout
    assert re.search(r"0\.261078\s+\(expected\s+0\.261079\)", output)


def test_bench_measures_backends(run):
    result = json.loads(run("bench", "moons", "--backend", "numpy", "--scale", "0.01", "--json").stdout)
    rows = result["measurements"]
    assert [(row["workload"], row["backend"]) for row in rows] == [("moons", "numpy")]
    assert rows[0]["samples_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digit"], "did you mean 'digits'"),
        (["train", "missing.toml"], "missing.toml"),
        (["train", "digits", "--backend", "nunpy"], "did you mean 'numpy'"),
        (["train", "digits", "--backend", "numpy", "--device", "gpu"], "device"),
        (["train", "digits", "--backend", "numpy", "--device", "cuda"], "backend='cupy'"),
        (["train", "digits", "--backend", "numpy", "--steps", "0"], "--steps"),
        (["train", "digits", "--steps", "10", "--epochs", "5"], "--steps or --epochs, not both"),
        (["train", "digits", "--dtype", "float16"], "float32"),
        (["train", "digits", "--backend", "numpy", "--data", "nowhere.csv"], "nowhere.csv"),
        (["train", "mnist-16", "--backend", "numpy", "--data", "nowhere"], "train-images-idx3-ubyte"),
        (["train", "digits", "--resume"], "--checkpoint"),
        (["train", "digits", "--save", "no/such/folder/net.safetensors"], "no folder"),
        (["predict", "nowhere.safetensors", "--data", "x.csv"], "nowhere.safetensors"),
        (["predict", __file__, "--data", "x.csv"], "safetensors"),
        (["evaluate"], "NETWORK"),
        (["bench", "mist-16"], "did you mean 'mnist-16'"),
        (["recipes", "digit"], "did you mean 'digits'"),
        (["trian"], "No such command"),
    ],
)
def test_bad_input_gives_one_clear_line_and_exit_code_2(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, code=2)
    assert message in result.stderr
    assert result.stdout == ""


def test_a_missing_backend_is_told_before_missing_data(run, monkeypatch):
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    missing = {"cupy": Availability(False, "not installed: pip install 'fastnet[cuda13]'")}
    monkeypatch.setattr("fastnet.backends.cupy_backend.CupyBackend.availability", lambda _: missing["cupy"])
    message = run("train", "mnist-16", "--backend", "cupy", code=2).stderr
    assert "fastnet[cuda13]" in message
    assert len(message.splitlines()) == 1


def test_outputs_that_cannot_be_written_are_told_before_training(run, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for option, path, message in (
        ("--save", "folder", "is a folder"),
        ("--checkpoint", "folder", "is a folder"),
        ("--plot", "curve.txt", "cannot draw that kind of file"),
        ("--plot", "file", "pictures go into a folder"),
    ):
        result = run("train", "or-gate", "--backend", "numpy", option, tmp_path / path, code=2)
        assert message in result.stderr
        assert result.stdout == ""


@pytest.mark.skipif(not CLOSED.is_dir(), reason="there is no folder that is closed to root")
@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("option", ["--save", "--checkpoint", "--plot"])
def test_a_folder_that_cannot_be_written_to_is_told_before_training(run, option):
    path = CLOSED / "curves.png"
    message = run("train", "or-gate", "--backend", "numpy", option, path, code=2).stderr
    assert message.startswith(f"fastnet: {path}: cannot be written: ")
    if option == "--plot":
        assert str(CLOSED) in run("train", "or-gate", "--plot", CLOSED, code=2).stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes are no files there")
@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("option", ["--save", "--checkpoint"])
def test_a_pipe_is_refused_before_training(run, tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in run("train", "or-gate", option, tmp_path / "pipe", code=2).stderr
    assert (tmp_path / "pipe").is_fifo()


def test_a_network_that_cannot_be_saved_after_all_is_kept_elsewhere(run, tmp_path, monkeypatch):
    """The disk becomes full while it is trained."""
    errors = [OSError(28, "No space left on device")]
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(errors.pop()) if errors else sync(file))
    path = tmp_path / "net.safetensors"
    message = run("train", "or-gate", "--backend", "numpy", "--quiet", "--save", path, code=2).stderr
    kept = re.fullmatch(rf"fastnet: {path}: No space left on device; the network is kept as (.+)\n", message)
    assert kept
    assert not path.exists()
    assert Network.load(kept[1]).predict([[0, 1]]).tolist() == [1]
    shutil.rmtree(Path(kept[1]).parent)


def test_predictions_find_columns_by_their_names(run, tmp_path):
    """Those of a file may be in another order than those of the training data, and others among them."""
    random = np.random.default_rng(0)
    rows = [(*values, "high" if values[0] > values[1] else "low") for values in random.normal(size=(60, 2)).round(3)]
    (tmp_path / "table.csv").write_text("a,b,level\n" + "".join(f"{a},{b},{level}\n" for a, b, level in rows))
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[data]\nsource = "file"\npath = "table.csv"\ntarget = "level"\n[network]\nlayer_sizes = ["auto", "auto"]\n'
        '[optimizer]\nname = "adam"\nlearning_rate = 0.1\n[training]\nn_steps = 200\n'
    )
    network = tmp_path / "net.safetensors"
    run("train", recipe, "--backend", "numpy", "--save", network)
    (tmp_path / "new.csv").write_text("id,b,a\n" + "".join(f"n{i},{b},{a}\n" for i, (a, b, _) in enumerate(rows)))
    predicted = run("predict", network, "--data", tmp_path / "new.csv", "--backend", "numpy").stdout.split()
    assert np.mean([label == row[-1] for label, row in zip(predicted, rows, strict=True)]) > 0.9
    (tmp_path / "other.csv").write_text("a,c\n1,2\n")
    message = run("predict", network, "--data", tmp_path / "other.csv", code=2).stderr
    assert "other.csv: has no column called b, which the network was trained on. Columns are a, c" in message
    evaluated = run("evaluate", network, "--data", tmp_path / "table.csv", "--backend", "numpy").stdout
    assert "accuracy" in evaluated  # what is no feature is the target


def test_a_network_that_is_not_there_is_told_as_other_files_are(run, tmp_path):
    message = run("evaluate", tmp_path / "net.safetensors", "--data", tmp_path, code=2).stderr
    assert message == f"fastnet: {tmp_path / 'net.safetensors'}: No such file or directory\n"


@pytest.fixture
def to_predict(tmp_path):
    """A saved network and four samples to predict with it."""
    Network([2, 1], output="identity", backend="numpy", seed=0).save(tmp_path / "net.safetensors")
    np.savez(tmp_path / "data.npz", X=np.arange(8.0).reshape(4, 2))
    return [tmp_path / "net.safetensors", "--data", tmp_path / "data.npz", "--backend", "numpy"]


def test_predictions_go_to_a_file_whole_or_not_at_all(run, to_predict, tmp_path, monkeypatch):
    expected = run("predict", *to_predict).stdout
    assert len(expected.splitlines()) == 4
    assert run("predict", *to_predict, "-o", "-").stdout == expected
    output = tmp_path / "predictions.csv"
    output.write_text("older ones")
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        message = run("predict", *to_predict, "-o", output, code=2).stderr
    assert message == f"fastnet: {output}: No space left on device\n"
    assert output.read_text() == "older ones"
    assert run("predict", *to_predict, "-o", output).stdout == ""
    assert output.read_text() == expected


@pytest.mark.skipif(os.name != "posix", reason="pipes are no files there")
def test_predictions_go_into_a_pipe(run, to_predict, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        run("predict", *to_predict, "-o", tmp_path / "pipe")
        assert reader.communicate()[0] == run("predict", *to_predict).stdout


@pytest.mark.parametrize(("output", "message"), [("nowhere/x", "there is no folder"), (".", "is a folder")])
def test_where_predictions_cannot_go_is_told_before_they_are_made(run, to_predict, output, message, monkeypatch):
    monkeypatch.setattr(Network, "load", lambda *_, **__: pytest.fail("this was to be told before any work"))
    monkeypatch.chdir(to_predict[0].parent)
    assert message in run("predict", *to_predict, "-o", output, code=2).stderr


def test_quiet_is_quiet(run, tmp_path):
    result = run("train", "or-gate", "--backend", "numpy", "-q", "--steps", 5, "--save", tmp_path / "net.safetensors")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1


def test_json_has_no_nan(run, tmp_path):
    net = Network([1, 1], output="identity", backend="numpy", seed=0)
    net.save(tmp_path / "net.safetensors")
    np.savez(tmp_path / "one.npz", X=np.ones((1, 1)), y=np.ones(1))
    output = run(
        "evaluate", tmp_path / "net.safetensors", "--data", tmp_path / "one.npz", "--json", "--backend", "numpy"
    )
    assert json.loads(output.stdout, parse_constant=pytest.fail)["r2"] is None


def test_divergence_gives_exit_code_1_and_keeps_the_last_finite_weights(run, recipe, csv):
    network = csv.with_name("net.safetensors")
    text = recipe.read_text().replace('activation = "tanh"', 'activation = "identity"\noutput = "identity"')
    recipe.write_text(
        text.replace('target = "kind"', 'target = "height"').replace("learning_rate = 0.5", "learning_rate = 1e3")
    )
    csv.write_text("\n".join(line.rsplit(",", 1)[0] for line in csv.read_text().splitlines()))
    result = run("train", recipe, "--backend", "numpy", "--save", network, code=1)
    assert "diverged" in result.stderr
    assert all(np.isfinite(weight).all() for weight in Network.load(network).weights)


def as_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fastnet", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_gpu_that_is_not_there_is_told_in_one_line():
    result = as_process("train", "or-gate", "--backend", "cupy", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "cupy-cuda13x" in result.stderr or "device" in result.stderr


def test_progress_is_quiet_when_not_at_a_terminal():
    result = as_process("train", "or-gate", "--backend", "numpy")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout


def test_the_backend_is_read_from_the_environment():
    assert json.loads(as_process("train", "or-gate", "--json", FASTNET_BACKEND="numpy").stdout)["backend"] == "numpy"
    result = as_process("train", "or-gate", FASTNET_BACKEND="nonesuch")
    assert result.returncode == 2
    assert "nonesuch" in result.stderr


def test_help_loads_nothing_heavy():
    script = "import sys; sys.argv = ['fastnet', '--help']; from fastnet.cli import main\n"
    script += "try: main()\nexcept SystemExit: pass"
    script += (
        "\nprint({'numba', 'scipy', 'sklearn', 'rich', 'matplotlib'} & {name.split('.')[0] for name in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "train" in result.stdout
    assert result.stdout.rstrip().endswith("set()")
