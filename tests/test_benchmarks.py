"""The benchmarks run, every row reaches the same loss, and reports say what was measured."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click import ClickException
from conftest import require_or_skip

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
def imported(monkeypatch):
    """A function that imports a script by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def report(imported):
    return imported("report")


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


def test_scaling_in_a_process_of_its_own(tmp_path):
    require_or_skip("numba")
    command = [sys.executable, BENCHMARKS / "scaling.py", "--out", tmp_path, "--scale", "0.01"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (described,), (table,), (picture,) = (list(tmp_path.glob(f"scaling-*.{kind}")) for kind in ("json", "md", "png"))
    sweeps = json.loads(described.read_text(encoding="utf-8"))["sweeps"]
    assert list(sweeps) == ["samples", "width", "depth", "threads"]
    for name, sweep in sweeps.items():
        for point in sweep["points"]:
            assert point["flops_per_second"] > 0
            assert 0 < point["best_seconds_per_step"] <= point["seconds_per_step"]
            case = point["case"]
            varied = {"samples": case["n_samples"], "width": case["hidden"][0], "threads": case["n_threads"]}
            assert point["value"] == varied.get(name, len(case["hidden"]))
    assert [point["value"] for point in sweeps["samples"]["points"]] == [10, 30, 100, 300, 1000, 3000, 10_000]
    assert "| samples | ms per step | best | GFLOP/s |" in table.read_text(encoding="utf-8")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_sweeps_vary_one_thing_at_a_time_up_to_the_machine(imported):
    samples, width, depth, threads = imported("scaling").sweeps(1.0, 6)
    assert [case.n_samples for case in samples.cases][::6] == [1_000, 1_000_000]
    assert [case.hidden for case in width.cases] == [(2**k,) for k in range(4, 11)]
    assert [len(case.hidden) for case in depth.cases] == [1, 2, 4, 8]
    assert [case.n_threads for case in threads.cases] == [1, 2, 4, 6]
    assert {case.n_threads for sweep in (samples, width, depth) for case in sweep.cases} == {6}
    for sweep, what in ((samples, "n_samples"), (width, "hidden"), (depth, "hidden"), (threads, "n_threads")):
        others = [{name: value for name, value in vars(case).items() if name != what} for case in sweep.cases]
        assert all(each == others[0] for each in others)


def test_slopes_to_compare_with(imported):
    proportion = imported("scaling").proportion
    assert proportion("width", [16, 32, 64], [5.0, 6.0, 8.0]) == [2.0, 4.0, 8.0]  # through the last
    assert proportion("threads", [1, 2, 4], [8.0, 5.0, 3.0]) == [8.0, 4.0, 2.0]  # through the first


@pytest.fixture
def written_report(report, tmp_path):
    """A report of two workloads and of whole processes, as `report.py` writes it."""
    rows = [
        benchmark("fastnet numba", 0.1, 0.1), benchmark("fastnet numpy", 0.5, 0.5), benchmark("JAX", 0.3, 0.3),
        benchmark("PyTorch eager", 0.6, 0.6), benchmark("PyTorch compiled", 0.25, 0.25),
        benchmark("NumPy script, float64", 0.8, 0.8), benchmark("NumPy script, float32", 0.7, 0.7),
        benchmark("fastnet numba", 20.0, 20.0, group="sum"), benchmark("scikit-learn", 15.0, 15.0, group="sum"),
        benchmark("fastnet numba", 0.1, 0.1, group="alone"),
    ]  # fmt: skip
    whole_process = benchmark("fastnet numba, kernels cached", 1.0, 1.0, group="first-fit")
    del whole_process["extra_info"]["first_call_seconds"]
    raw = tmp_path / "raw.json"
    raw.write_text(json.dumps(raw_of(whole_process, *rows)))
    report.main([str(raw), "--out", str(tmp_path)], standalone_mode=False)
    return tmp_path / "cpu-2025-02-03.json"


def test_speeds_are_the_best_of_each_library(imported, written_report):
    digits, sums = imported("speeds").read_speeds(written_report)
    assert (digits.workload, sums.workload) == ("mnist-16", "sum")
    assert digits.times == pytest.approx(
        {"fastnet numba": 10, "fastnet numpy": 50, "JAX": 30, "PyTorch": 25, "NumPy script": 70}
    )
    assert digits.peers == ["PyTorch", "JAX", "NumPy script"]
    assert digits.ratio("PyTorch") == pytest.approx(2.5)
    assert sums.ratio("scikit-learn") == pytest.approx(0.75)


def test_the_newest_report_is_the_one_that_is_shown(imported, tmp_path, monkeypatch):
    speeds = imported("speeds")
    for name in ("cpu-2025-11-30.json", "cpu-2026-01-02.json", "gpu-2027-01-01.json", "scaling-2027-01-01.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(speeds, "RESULTS", tmp_path)
    assert speeds.latest_report().name == "cpu-2026-01-02.json"


def test_the_table_of_the_readme(imported, written_report, tmp_path):
    readme_table = imported("readme_table")
    readme = tmp_path / "README.md"
    names = "fastnet numba", "fastnet numpy", "JAX", "PyTorch", "scikit-learn", "NumPy script"
    heading = f"| workload | {' | '.join(names)} | fastest peer ÷ numba |"
    readme.write_text(f"before\n\n{readme_table.BEGIN}what was there\n{readme_table.END}\nafter\n", encoding="utf-8")
    for _ in range(2):  # the second time changes nothing
        readme_table.main([str(written_report), "--readme", str(readme)], standalone_mode=False)
        lines = readme.read_text(encoding="utf-8").splitlines()
        assert lines[:2] == ["before", ""]
        assert lines[-2:] == ["", "after"]
        assert lines[4:-4] == [
            heading,
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            "| `mnist-16` | 10 | 50 | 30 | 25 | - | 70 | **2.50** |",
            "| `sum` | 2000 | - | - | - | 1500 | - | 0.75 |",
        ]


def test_a_readme_without_marks_is_told_and_left_alone(imported, written_report, tmp_path):
    (tmp_path / "README.md").write_text("nothing here", encoding="utf-8")
    with pytest.raises(ClickException, match="the marks"):
        imported("readme_table").main(
            [str(written_report), "--readme", str(tmp_path / "README.md")], standalone_mode=False
        )
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "nothing here"


def test_the_chart_has_a_bar_for_the_fastest_peer_and_the_usual_ways(imported, written_report, tmp_path):
    chart, speeds = imported("chart"), imported("speeds").read_speeds(written_report)
    (ax,) = chart.draw(speeds).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["mnist-16", "sum"]
    texts = {text.get_text(): text.xy[0] for text in ax.texts if hasattr(text, "xy")}
    assert texts == pytest.approx({"PyTorch  2.50": 2.5, "NumPy script  7.00": 7.0, "scikit-learn  0.75": 0.75})
    ends = sorted(bar.get_x() + bar.get_width() for bar in ax.patches if bar.get_width())
    assert ends == pytest.approx([0.75, 2.5, 7.0])
    low, high = ax.get_xlim()
    assert low < 0.75
    assert high > 7
    chart.main([str(written_report), "--out", str(tmp_path / "speed.png")], standalone_mode=False)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
