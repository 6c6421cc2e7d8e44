"""Peers do the same steps, those that are not installed are told, and looking one up imports it alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fastnet.benchmarking import compare, peers, speed
from fastnet.benchmarking.peers import PEERS, AbsentError, find_peer
from fastnet.cli import main
from fastnet.errors import SpecError
from fastnet.workloads import SMOKE_SCALE, load

NUMPY_SCRIPTS = ["NumPy script, float64", "NumPy script, float32"]


def test_names():
    assert list(PEERS) == [*NUMPY_SCRIPTS, "scikit-learn", "PyTorch eager", "PyTorch compiled", "JAX"]
    with pytest.raises(SpecError, match="did you mean 'scikit-learn'"):
        find_peer("scikit-lern")


@pytest.mark.parametrize(("peer", "library"), [("scikit-learn", "sklearn"), *((name, "") for name in NUMPY_SCRIPTS)])
def test_looking_one_up_imports_its_library_alone(peer, library):
    script = f"""
import sys
from fastnet.benchmarking.peers import find_peer
find_peer({peer!r})
print(*{{"sklearn", "torch", "jax", "numba"}} & {{name.split(".")[0] for name in sys.modules}})
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == library


@pytest.fixture
def without_torch_and_jax(monkeypatch):
    """As where neither is installed."""

    def missing():
        raise ModuleNotFoundError("No module named 'thing'", name="thing")

    for name in ("PyTorch eager", "PyTorch compiled", "JAX"):
        monkeypatch.setitem(peers.PEERS, name, missing)


@pytest.mark.parametrize("n_threads", [None, 1])
@pytest.mark.parametrize("workload", ["mnist-16", "moons", "tabular-adam"])
def test_peers_reach_the_expected_loss_again_and_again(workload, n_threads):
    loaded = load(workload, scale=SMOKE_SCALE)
    for name in [*NUMPY_SCRIPTS, "scikit-learn"]:
        peer = find_peer(name)(loaded, n_threads=n_threads)
        assert peer.n_threads == (n_threads or peer.n_threads) >= 1
        for _ in range(2):
            peer.reset()
            peer.run()
            assert loaded.agrees(loaded.loss(peer.parameters())), name


def test_threads_are_limited_while_a_peer_runs(monkeypatch):
    from threadpoolctl import threadpool_info

    from fastnet.benchmarking.peers.numpy_script import NumpyScript

    seen = []

    def blas_threads(*_):
        seen.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})

    monkeypatch.setattr(NumpyScript, "_run", blas_threads)
    find_peer(NUMPY_SCRIPTS[0])(load("moons", scale=SMOKE_SCALE), n_threads=1).run()
    assert seen == [{1}]


def test_jax_is_absent_where_fewer_threads_are_allowed_than_it_takes(monkeypatch):
    pytest.importorskip("jax")
    from fastnet.benchmarking.peers import jax_peer

    monkeypatch.setattr(jax_peer, "n_usable_cpus", lambda: 4)
    with pytest.raises(AbsentError, match="a thread for each of 4 CPUs, and 2 are allowed"):
        find_peer("JAX")(load("moons", scale=SMOKE_SCALE), n_threads=2)


def test_backends_and_peers_are_compared_and_the_absent_are_told(without_torch_and_jax):
    comparison = compare("sum", ["numpy"], PEERS, scale=SMOKE_SCALE, rounds=2)
    assert [each.backend for each in comparison.measurements] == ["numpy", *NUMPY_SCRIPTS]
    for each in comparison.measurements:
        assert each.agrees
        assert len(each.seconds) == 2
        assert each.detail
    assert [each.dtype for each in comparison.measurements] == ["float32", "float64", "float32"]
    assert comparison.absent == {
        "scikit-learn": "scikit-learn's networks always have biases",
        **dict.fromkeys(["PyTorch eager", "PyTorch compiled", "JAX"], "thing is not installed"),
    }


def bench(*options):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        main, ["bench", "--scale", str(SMOKE_SCALE), "--backend", "numpy", "--rounds", "1", *options]
    )
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_bench_prints_peers_and_one_line_for_each_that_is_absent(without_torch_and_jax):
    lines = bench("moons", "sum", "--peers").splitlines()
    assert sum("NumPy script, float64 (cpu)" in line for line in lines) == 2
    assert lines.count("not here: JAX, as thing is not installed") == 1
    assert lines.count("not for sum: scikit-learn, as scikit-learn's networks always have biases") == 1


def test_bench_writes_peers_and_rooflines_for_machines(without_torch_and_jax, monkeypatch):
    monkeypatch.setattr(speed, "_BYTES", 2**20)
    monkeypatch.setattr(speed, "_MATRIX_SIZE", 64)
    speed.measure_speed.cache_clear()
    described = json.loads(bench("sum", "--peers", "--explain", "--json"))
    speed.measure_speed.cache_clear()
    assert described["absent"]["sum"]["JAX"] == "thing is not installed"
    assert [each["backend"] for each in described["measurements"]] == ["numpy", *NUMPY_SCRIPTS]
    for each in described["measurements"]:
        assert each["roofline"]["fraction"] > 0
    assert {each["dtype"] for each in described["machine"]["speeds"]} == {"float32", "float64"}


def test_bench_explains_what_was_measured_and_what_the_machine_allows(monkeypatch):
    monkeypatch.setattr(speed, "_BYTES", 2**20)
    monkeypatch.setattr(speed, "_MATRIX_SIZE", 64)
    speed.measure_speed.cache_clear()
    output = bench("moons", "mnist-16", "--explain")
    speed.measure_speed.cache_clear()
    assert "moons, numpy: array operations of NumPy, one call per operation" in output
    # 200 samples of 2 float32 and a float32 target, 21 parameters; 2 (2 * 10 + 3 * 5) FLOPs a sample.
    assert "a step needs 2.57 kB (" in output
    assert " and 14 kFLOP (" in output
    assert output.count("without products by zero") == 1  # moons have none, pixels do
    assert "NumPy multiplies large matrices at" in output
    assert "absent" not in output
    assert "not here" not in output
