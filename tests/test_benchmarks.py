"""The benchmarks run, every row reaches the same loss, and reports say what was measured."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def run_benchmarks(*options):
    """Run pytest on the benchmarks in a process of its own; compiled peers take too long to build for a test."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name != "FASTNET_DATA"}
    return subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_every_row_reaches_the_expected_loss():
    finished = run_benchmarks("--benchmark-disable", "-k", "not compiled")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_measuring_and_reporting(tmp_path):
    raw = tmp_path / "raw.json"
    finished = run_benchmarks(
        "--benchmark-enable",
        "--smoke",
        f"--benchmark-json={raw}",
        "-k",
        "training and sum and not compiled and not cupy",
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    command = [sys.executable, BENCHMARKS / "report.py", raw, "--out", tmp_path, "--name", "here"]
    subprocess.run(command, check=True, capture_output=True)
    (table,), (described,) = tmp_path.glob("here-*.md"), tmp_path.glob("here-*.json")
    text = table.read_text(encoding="utf-8")
    assert "## sum: 2-3-1" in text
    assert "| **fastnet numpy** |" in text
    assert "| NumPy script, float64 |" in text
    assert "Not here: scikit-learn, as scikit-learn's networks always have biases." in text
    written = described.read_text(encoding="utf-8")
    assert set(json.loads(written)["machine"]) == {"system", "processor", "n_cpus", "python", "versions"}
    for private in (str(ROOT), str(Path.home()), str(tmp_path)):
        assert private not in text + written


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("report")
    yield module
    sys.modules.pop("report", None)


def benchmark(row, median, minimum, *, group="mnist-16", **info):
    figures = {
        "row": row, "title": "a title", "data_source": "drawn", "n_samples": 42_000, "n_steps": 10, "device": "cpu",
        "dtype": "float32", "n_threads": 2, "loss": 1.25, "first_call_seconds": 3.5,
    }  # fmt: skip
    return {"group": group, "stats": {"median": median, "min": minimum}, "extra_info": figures | info}


MACHINE = {
    "system": "Linux x86_64", "processor": "A processor", "n_cpus": 2, "python": "3.12.1",
    "versions": {"numpy": "2.3.0"},
}  # fmt: skip


def raw_of(*benchmarks, absent=()):
    return {
        "datetime": "2025-02-03T04:05:06+00:00", "machine_info": MACHINE, "benchmarks": list(benchmarks),
        "absent": list(absent), "commit_info": {"branch": "secret"},
    }  # fmt: skip


def test_ratios_and_order(report):
    (group,) = report.read_groups(
        raw_of(
            benchmark("scikit-learn", 0.9, 0.8),
            benchmark("fastnet numba", 0.1, 0.05),
            benchmark("JAX", 0.3, 0.25),
            benchmark("fastnet numpy", 0.5, 0.4),
        )
    )
    assert [row.name for row in group.rows] == ["fastnet numba", "JAX", "fastnet numpy", "scikit-learn"]
    assert [row.time for row in group.rows] == pytest.approx([10, 30, 50, 90])  # ms per step, of ten
    assert group.rows[0].best == pytest.approx(5)
    assert [row.ratio_to_fastnet for row in group.rows] == pytest.approx([1, 3, 5, 9])
    assert [row.ratio_to_best_peer for row in group.rows] == pytest.approx([1 / 3, 1, 5 / 3, 3])
    assert report.verdicts(group) == ["fastnet numba is 3.00 times as fast as the fastest peer, JAX."]


def test_losses_are_told(report):
    (group,) = report.read_groups(
        raw_of(benchmark("fastnet numba", 0.6, 0.6), benchmark("JAX", 0.2, 0.2), benchmark("fastnet numpy", 0.3, 0.3))
    )
    assert report.verdicts(group) == [
        "**Slower here:** fastnet numba takes 3.00 times as long as the fastest peer, JAX.",
        "**Slower here:** fastnet numba takes 2.00 times as long as fastnet numpy.",
    ]
    text = report.as_markdown("2025-02-03", MACHINE, [group])
    assert "- **Slower here:** fastnet numba takes 3.00 times as long as the fastest peer, JAX." in text
    assert "| JAX | 20 | 20 | 0.33 | 1.00 | 1.25 | 3.50 | float32 | 2 |" in text


def test_without_peers_or_without_numba(report):
    (group,) = report.read_groups(raw_of(benchmark("fastnet numba", 0.6, 0.6)))
    assert group.rows[0].ratio_to_best_peer is None
    assert report.verdicts(group) == []
    (group,) = report.read_groups(raw_of(benchmark("JAX", 0.6, 0.6)))
    assert group.rows[0].ratio_to_fastnet is None
    assert report.verdicts(group) == []


def test_first_fits_are_in_seconds(report):
    cold, warm, peer = (
        benchmark(row, seconds, seconds, group="first-fit")
        for row, seconds in (
            ("fastnet numba, nothing cached", 8.0),
            ("fastnet numba, kernels cached", 1.0),
            ("JAX", 2.0),
        )
    )
    for each in (cold, warm, peer):
        del each["extra_info"]["first_call_seconds"]
    (group,) = report.read_groups(raw_of(cold, warm, peer))
    assert [row.time for row in group.rows] == [1.0, 2.0, 8.0]
    assert report.verdicts(group) == [
        "fastnet numba, kernels cached is 2.00 times as fast as the fastest peer, JAX.",
        "**Slower here:** fastnet numba, nothing cached takes 4.00 times as long as the fastest peer, JAX.",
    ]


def test_files(report, tmp_path):
    raw = tmp_path / "raw.json"
    absent = {"group": "mnist-16", "row": "JAX", "reason": "jax is not installed"}
    raw.write_text(json.dumps(raw_of(benchmark("fastnet numba", 0.6, 0.6), absent=[absent])))
    report.main([str(raw), "--out", str(tmp_path / "results")], standalone_mode=False)
    text = (tmp_path / "results" / "cpu-2025-02-03.md").read_text(encoding="utf-8")
    assert "A processor, 2 CPUs used, Linux x86_64, Python 3.12.1." in text
    assert "Versions: numpy 2.3.0." in text
    assert "- Not here: JAX, as jax is not installed." in text
    described = json.loads((tmp_path / "results" / "cpu-2025-02-03.json").read_text(encoding="utf-8"))
    assert described["machine"] == MACHINE
    assert described["groups"][0]["rows"][0]["time"] == pytest.approx(60)
    assert "secret" not in json.dumps(described)
