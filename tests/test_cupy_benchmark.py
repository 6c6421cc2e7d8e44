"""``benchmarks/gpu.py`` works where there is no GPU to run it on: on an emulated one, and its peers on the CPU."""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import emulated_cupy
import pytest
from click.testing import CliRunner

import fastnet.testing
from fastnet.backends.registry import create_backend
from fastnet.benchmarking import BackendTrial
from fastnet.testing import conformance_checks
from fastnet.workloads import SMOKE_SCALE, load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.filterwarnings("default")  # the peers' warnings are not ours to mend


@pytest.fixture(scope="module", autouse=True)
def _libraries_of_the_peers():
    """PyTorch, where it is installed, looks at what other libraries are loaded: it must not meet an emulated CuPy."""
    with suppress(ImportError):
        import torch  # noqa: F401


@pytest.fixture
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    for name in ("gpu", "gpu_checks", "gpu_report", "gpu_rows"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # they hold on to what was there when they were imported
    few = dict(list(conformance_checks().items())[:2])
    monkeypatch.setattr(fastnet.testing, "conformance_checks", lambda: few)


@pytest.fixture
def here(machine, monkeypatch):
    """What is done in processes of their own is done in this one, as the emulated GPU is in no other.

    It must be there when the benchmark is imported.
    """
    import gpu

    monkeypatch.setattr(gpu, "n_usable_cpus", lambda: 1)
    monkeypatch.setattr(gpu, "run_apart", lambda function, *arguments, seconds: function(*arguments))
    return gpu


def run(*options):
    import gpu

    return CliRunner(env={"COLUMNS": "200"}).invoke(
        gpu.main, ["--rounds", "2", "--at-least", "0", "--scale", str(SMOKE_SCALE), *options]
    )


@pytest.fixture
def paths(machine, here, monkeypatch):
    """The wide path and the generic one; others have tests of their own."""
    from fastnet.backends.cupy_backend import paths, wide

    monkeypatch.setattr(paths, "PATHS", (wide,))


def test_report_on_an_emulated_gpu(paths, tmp_path):
    result = run("mnist-128", "digits-adam", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("gpu-*.json")
    report = json.loads(path.read_text())
    assert report["machine"]["device"] == "cuda:0 Emulated GPU 0"
    assert report["start_seconds"] >= 0
    assert {name: parity["n_passed"] for name, parity in report["parity"].items()} == {
        "default": 2, "wide": 0, "generic": 2,
    }  # fmt: skip
    assert [len(parity["not_taken"]) for parity in report["parity"].values()] == [0, 2, 0]
    assert not any(parity["failed"] for parity in report["parity"].values())
    equal = "equal bit for bit"
    assert report["repeatable"] == {
        "mnist-128": {"default": equal, "wide": equal, "generic": equal},
        "digits-adam": {"default": equal, "generic": equal},
    }
    for errors in report["gradient_errors"].values():
        assert all(0 < error < 1e-6 for error in errors.values())
    assert report["failed"] == {"mnist-128": {}, "digits-adam": {}}
    timings = {(timing["workload"], timing["row"]): timing for timing in report["timings"]}
    assert set(timings) == {
        ("mnist-128", "fastnet cupy"),
        ("mnist-128", "fastnet cupy, by wide"),
        ("mnist-128", "fastnet cupy, by generic"),
        ("mnist-128", "fastnet cupy, TF32 permitted"),
        ("digits-adam", "fastnet cupy"),
        ("digits-adam", "fastnet cupy, by generic"),
    }
    for timing in timings.values():
        assert 0 < timing["best_microseconds_per_step"] <= timing["microseconds_per_step"]
        assert timing["agrees"] or "TF32" in timing["row"]
        assert timing["detail"] in result.output.replace("\n", " ")
    by_wide = timings["mnist-128", "fastnet cupy, by wide"]
    assert by_wide["detail"].startswith("first layer by cuBLAS on halves")  # too little work for it by default
    assert timings["mnist-128", "fastnet cupy"]["detail"].startswith("products by cuBLAS")
    assert timings["mnist-128", "fastnet cupy, TF32 permitted"]["dtype"] == "TF32 products"
    # PyTorch and JAX find no GPU, or are not installed.
    assert [len(absent) for absent in report["absent"].values()] == [5, 6]
    assert "batches are too small" in report["absent"]["digits-adam"]["fastnet cupy, by wide"]


def test_rows_are_warm_before_they_are_timed(machine, monkeypatch):
    import gpu_rows

    runs, clock = [], iter(range(1000))
    monkeypatch.setattr("fastnet.benchmarking.trials.time", SimpleNamespace(perf_counter=lambda: next(clock) / 20))

    class Trial:
        device = dtype = detail = ""

        def reset(self):
            runs.append("reset")

        def run(self):
            runs.append("run")

        def parameters(self):
            return loaded.start

        def close(self):
            pass

    loaded = load("moons", scale=SMOKE_SCALE)
    task = gpu_rows.Task("moons", None, SMOKE_SCALE, rounds=1, at_least=0.5, device="cuda")
    timing = gpu_rows.time_row("a row", lambda _: Trial(), loaded, task)
    # In each round the clock is read three times, 0.05 s apart, so that two rounds last 0.3 s and four 0.5 s.
    assert runs == ["run"] * 2 + ["reset", "run"] * (2 + 4)
    assert timing.microseconds_per_step == pytest.approx(0.05e6 / timing.n_steps)


def test_trial_that_is_reset_is_ready(machine):
    """No copies to the device are under way when the clock starts."""
    loaded = load("moons", scale=SMOKE_SCALE)
    with closing(BackendTrial(loaded, create_backend("cupy"), 1)) as trial:
        before = machine.n_waits
        trial.reset()
        assert machine.n_waits == before + 1


def test_paths_may_be_named(paths):
    result = run("mnist-128", "--path", "wide")
    assert result.exit_code == 0, result.output
    assert "path wide" in result.output
    assert "generic" not in result.output


def test_backend_that_is_wrong_fails_the_benchmark(paths, monkeypatch):
    """All paths get wrong parameters."""
    from fastnet.backends.cupy_backend import CupyBackend
    from fastnet.parameters import Parameters

    plan_training = CupyBackend.plan_training

    def plan_wrongly(backend, spec, parameters, dataset):
        return plan_training(backend, spec, Parameters(parameters.layout, parameters.flat * 1.1), dataset)

    monkeypatch.setattr(CupyBackend, "plan_training", plan_wrongly)
    result = run("moons")
    assert result.exit_code == 1
    assert "path default: 0 of 2 checks passed" in result.output
    assert "path generic: 0 of 2 checks passed" in result.output
    assert "(differs)" in result.output


def test_one_path_that_is_wrong_fails_the_benchmark(paths, monkeypatch):
    """Only its gradient tells, as nothing else of it is looked at: it is not chosen by default."""
    from fastnet.backends.cupy_backend import wide

    backward = wide.FirstLayer.backward
    monkeypatch.setattr(
        wide.FirstLayer, "backward", lambda layer, d_z, scale, d_weight: backward(layer, d_z, scale * 1.001, d_weight)
    )
    result = run("mnist-128")
    assert result.exit_code == 1
    (error,) = re.findall(r"path wide: the gradient's relative error is (\S+);", result.output)
    assert 5e-4 < float(error) < 1e-3


def test_one_path_that_breaks_is_told_and_the_others_go_on(paths, monkeypatch):
    from fastnet.backends.cupy_backend import wide

    def launch(*arguments, **options):
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")

    monkeypatch.setattr(wide.FirstLayer, "_launch", launch)
    result = run("mnist-128")
    assert result.exit_code == 1
    output = " ".join(result.output.split())
    assert "path wide: the gradient's relative error is nan; two runs are RuntimeError: CUDA_ERROR_ILLEGAL" in output
    assert "fastnet cupy, by wide: RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS" in output
    assert "fastnet cupy, by generic: products by cuBLAS" in output


def test_process_that_dies_is_told_and_the_others_go_on(here, paths, monkeypatch, tmp_path):
    """After it has found that the path is repeatable, say: what it has found is kept."""
    run_here = here.run_apart

    def die(function, *arguments, seconds):
        found = run_here(function, *arguments, seconds=seconds)
        if arguments[0] != "wide":
            return (yield from found)
        yield next(found)
        raise here.BrokenOffError("its process died with exit code -11")

    monkeypatch.setattr(here, "run_apart", die)
    result = run("mnist-128", "--part", "paths", "--out", str(tmp_path))
    assert result.exit_code == 1
    (path,) = tmp_path.glob("gpu-*.json")
    report = json.loads(path.read_text())
    died = "its process died with exit code -11"
    assert report["failed"] == {"mnist-128": {"fastnet cupy, by wide": died}}
    assert report["repeatable"]["mnist-128"]["wide"] == died
    assert report["gradient_errors"]["mnist-128"]["wide"] < 1e-6
    assert {timing["row"] for timing in report["timings"]} == {
        "fastnet cupy", "fastnet cupy, TF32 permitted", "fastnet cupy, by generic",
    }  # fmt: skip
    assert report["parity"] == {}


def test_interrupted_benchmark_leaves_what_it_has_found(here, paths, monkeypatch, tmp_path):
    run_here = here.run_apart

    def interrupt(function, *arguments, seconds):
        if arguments[0] == "generic":
            raise KeyboardInterrupt
        return run_here(function, *arguments, seconds=seconds)

    monkeypatch.setattr(here, "run_apart", interrupt)
    assert run("mnist-128", "--out", str(tmp_path)).exit_code == 1
    (path,) = tmp_path.iterdir()
    assert {timing["row"] for timing in json.loads(path.read_text())["timings"]} == {
        "fastnet cupy", "fastnet cupy, TF32 permitted", "fastnet cupy, by wide",
    }  # fmt: skip


def test_checks_go_on_in_a_new_process_after_an_error(here, paths, monkeypatch):
    """Which may have broken the device; a check that finds a difference has not."""
    outcomes = {
        "right": None,
        "different": AssertionError("1 != 2"),
        "broken": RuntimeError("CUDA_ERROR"),
        "last": None,
    }
    started, run_here = [], here.run_apart

    def make_check(name):
        def check(_):
            if outcomes[name]:
                raise outcomes[name]

        return check

    def count(function, *arguments, seconds):
        started.append(arguments)
        return run_here(function, *arguments, seconds=seconds)

    monkeypatch.setattr(here, "run_apart", count)
    for module in (here, fastnet.testing):
        monkeypatch.setattr(module, "conformance_checks", lambda: {name: make_check(name) for name in outcomes})
    result = run("--part", "parity", "--path", "wide")
    assert result.exit_code == 1
    assert [arguments for arguments in started if arguments[0] == "wide"] == [
        ("wide", "cuda", ["right", "different", "broken", "last"]),
        ("wide", "cuda", ["last"]),
    ]
    assert "path wide: 2 of 4 checks passed" in result.output
    assert "different: AssertionError: 1 != 2" in result.output
    assert "broken: RuntimeError: CUDA_ERROR" in result.output


def test_no_gpu_is_told(machine, here):
    machine.reset(n_devices=0)
    result = run()
    assert result.exit_code == 1
    assert "no usable CUDA device" in result.output


PEERS = [("torch", "TorchOnDevice", "eager"), ("jax", "JaxOnDevice", "highest")]


@pytest.mark.parametrize(("workload", "is_copied"), [("moons", False), ("tabular-adam", True)])
def test_compiled_peer_copies_batches_alone(monkeypatch, workload, is_copied):
    torch = pytest.importorskip("torch")
    import gpu_peers

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # which takes many seconds
    with closing(gpu_peers.TorchOnDevice(load(workload, scale=SMOKE_SCALE), "compiled", "cpu")) as trial:
        trial.run()
        is_static = [hasattr(tensor, "_dynamo_static_input_type") for tensor in (trial.X, trial.y)]
    assert is_static == [not is_copied] * 2


@pytest.mark.parametrize("workload", ["mnist-16", "moons", "sum", "tabular-adam"])
@pytest.mark.parametrize(("library", "peer", "how"), PEERS, ids=[name for name, *_ in PEERS])
def test_peer_trains_what_is_asked(library, peer, how, workload):
    pytest.importorskip(library)
    import gpu_peers

    loaded = load(workload, scale=SMOKE_SCALE)
    with closing(getattr(gpu_peers, peer)(loaded, how, "cpu")) as trial:
        for _ in range(2):  # the second time after a reset
            trial.reset()
            trial.run()
            assert loaded.agrees(loaded.loss(trial.parameters()))
