"""``benchmarks/gpu.py`` works where there is no GPU to run it on: on an emulated one, and its peers on the CPU."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import emulated_cupy
import pytest
from click.testing import CliRunner

import fastnet.testing
from fastnet.testing import conformance_checks
from fastnet.workloads import SMOKE_SCALE, load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.filterwarnings("default")  # the peers' warnings are not ours to mend


@pytest.fixture
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    few = dict(list(conformance_checks().items())[:2])
    monkeypatch.setattr(fastnet.testing, "conformance_checks", lambda: few)


def run(*options):
    import gpu

    return CliRunner(env={"COLUMNS": "200"}).invoke(gpu.main, ["--rounds", "2", "--scale", str(SMOKE_SCALE), *options])


def test_report_on_an_emulated_gpu(machine, tmp_path):
    result = run("moons", "digits-adam", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("gpu-*.json")
    report = json.loads(path.read_text())
    assert report["machine"]["device"] == "cuda:0 Emulated GPU 0"
    assert report["parity"] == {"n_passed": 2, "failed": {}}
    assert report["repeatable"] == {"moons": True, "digits-adam": True}
    for name in ("moons", "digits-adam"):
        (timing,) = (timing for timing in report["timings"] if timing["workload"] == name)
        assert (timing["row"], timing["agrees"]) == ("fastnet cupy", True)
        assert 0 < timing["best_microseconds_per_step"] <= timing["microseconds_per_step"]
        assert len(report["absent"][name]) == 5  # PyTorch and JAX, which find no GPU or are not installed


def test_backend_that_is_wrong_fails_the_benchmark(machine, monkeypatch):
    import cupy

    matmul = cupy.matmul
    monkeypatch.setattr(cupy, "matmul", lambda a, b, out: matmul(a, b, out=out).__imul__(1.01))
    result = run("moons")
    assert result.exit_code == 1
    assert "0 of 2 checks passed" in result.output
    assert "(differs)" in result.output


def test_no_gpu_is_told(machine):
    machine.reset(n_devices=0)
    result = run()
    assert result.exit_code == 1
    assert "no usable CUDA device" in result.output


PEERS = [("torch", "TorchOnDevice", "eager"), ("jax", "JaxOnDevice", "highest")]


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
