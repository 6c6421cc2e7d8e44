"""The benchmarks run, every row reaches the same loss, and reports say what was measured."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click import ClickException
from conftest import require_or_skip

from fastnet.workloads import load

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
WITHOUT_COMPILING = ("--without", "PyTorch compiled")  # which takes too long for a test


def run_benchmarks(*options):
    """Run pytest on the benchmarks in a process of its own."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider"]
    # pytest-benchmark measures nothing in what it takes for one of several workers
    left_out = "FASTNET_DATA", "PYTEST_XDIST_WORKER"
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_every_row_reaches_the_expected_loss():
    finished = run_benchmarks("--benchmark-disable", *WITHOUT_COMPILING)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_measuring_and_reporting(report, tmp_path):
    raw = tmp_path / "raw.json"
    finished = run_benchmarks(
        "--benchmark-enable",
        "--smoke",
        f"--benchmark-json={raw}",
        *WITHOUT_COMPILING,
        "-k",
        "training and sum",
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report.main([str(raw), "--out", str(tmp_path), "--name", "here"], standalone_mode=False)
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


def row(name, *seconds):
    return {
        "row": name, "seconds": seconds, "device": "cpu", "dtype": "float32", "n_threads": 2, "loss": 1.25,
        "first_call_seconds": 3.5,
    }  # fmt: skip


MACHINE = {
    "system": "Linux x86_64", "processor": "A processor", "n_cpus": 2, "python": "3.12.1",
    "versions": {"numpy": "2.3.0"},
}  # fmt: skip


def table(*rows, group="mnist-16", absent=None):
    info = {
        "title": "a title", "data_source": "drawn", "n_samples": 42_000, "n_steps": 10, "rows": rows,
        "absent": absent or {},
    }  # fmt: skip
    return {"group": group, "extra_info": info}


def raw_of(*tables, absent=None):
    return {
        "datetime": "2025-02-03T04:05:06+00:00", "machine_info": MACHINE, "commit_info": {"branch": "secret"},
        "benchmarks": tables, "absent": absent or {},
    }  # fmt: skip


def test_ratios_and_order(report):
    rows = (
        row("scikit-learn", 0.9, 0.8, 1.2),
        row("fastnet numba", 0.4, 0.05, 0.1),
        row("JAX", 0.3, 0.25, 0.9),
        row("fastnet numpy", 0.4, 0.5, 0.6),
    )
    (group,) = report.read_groups(raw_of(table(*rows)))
    assert [row.name for row in group.rows] == ["fastnet numba", "JAX", "fastnet numpy", "scikit-learn"]
    assert [row.time for row in group.rows] == pytest.approx([10, 30, 50, 90])  # ms per step, of ten
    assert group.rows[0].best == pytest.approx(5)
    assert [row.ratio_to_fastnet for row in group.rows] == pytest.approx([1, 3, 5, 9])
    assert [row.ratio_to_best_peer for row in group.rows] == pytest.approx([1 / 3, 1, 5 / 3, 3])
    assert report.verdicts(group) == ["fastnet numba is 3.00 times as fast as the fastest peer, JAX."]


def test_losses_are_told(report):
    rows = row("fastnet numba", 0.6), row("JAX", 0.2), row("fastnet numpy", 0.3)
    (group,) = report.read_groups(raw_of(table(*rows)))
    assert report.verdicts(group) == [
        "**Slower here:** fastnet numba takes 3.00 times as long as the fastest peer, JAX.",
        "**Slower here:** fastnet numba takes 2.00 times as long as fastnet numpy.",
    ]
    text = report.as_markdown("2025-02-03", MACHINE, [group])
    assert "- **Slower here:** fastnet numba takes 3.00 times as long as the fastest peer, JAX." in text
    assert "| JAX | 20 | 20 | 0.33 | 1.00 | 1.25 | 3.50 | float32 | 2 |" in text


def test_without_peers_or_without_numba(report):
    (group,) = report.read_groups(raw_of(table(row("fastnet numba", 0.6))))
    assert group.rows[0].ratio_to_best_peer is None
    assert report.verdicts(group) == []
    (group,) = report.read_groups(raw_of(table(row("JAX", 0.6))))
    assert group.rows[0].ratio_to_fastnet is None
    assert report.verdicts(group) == []


def test_first_fits_are_in_seconds(report):
    rows = row("fastnet numba, nothing cached", 8.0), row("fastnet numba, kernels cached", 1.0), row("JAX", 2.0)
    for each in rows:
        del each["first_call_seconds"]
    (group,) = report.read_groups(raw_of(table(*rows, group="first-fit")))
    assert [row.time for row in group.rows] == [1.0, 2.0, 8.0]
    assert report.verdicts(group) == [
        "fastnet numba, kernels cached is 2.00 times as fast as the fastest peer, JAX.",
        "**Slower here:** fastnet numba, nothing cached takes 4.00 times as long as the fastest peer, JAX.",
    ]


def test_files(report, tmp_path):
    raw = tmp_path / "raw.json"
    described = table(row("fastnet numba", 0.6), absent={"JAX": "jax is not installed"})
    raw.write_text(json.dumps(raw_of(described)))
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


def test_limits_in_a_process_of_its_own(tmp_path):
    require_or_skip("numba")
    command = [sys.executable, BENCHMARKS / "limits.py", "--out", tmp_path, "--scale", "0.01"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (described,), (table,) = (list(tmp_path.glob(f"limits-*.{kind}")) for kind in ("json", "md"))
    limits = {each["workload"]: each for each in json.loads(described.read_text(encoding="utf-8"))["limits"]}
    for name, limit in limits.items():
        loaded = load(name, scale=0.01)
        layer_sizes, batch_size = loaded.spec.network.layer_sizes, loaded.spec.batch_size
        n_samples, n_steps = loaded.dataset.n_samples, loaded.n_steps / loaded.workload.n_epochs
        n_numbers = np.count_nonzero(loaded.dataset.x) * layer_sizes[1]
        above = 3 * sum(a * b for a, b in itertools.pairwise(layer_sizes[1:]))
        lanes = 64 / np.dtype(loaded.spec.network.dtype).itemsize
        assert limit["multiply_adds"] == pytest.approx((2 * n_numbers + n_samples * above) / n_steps / lanes)
        assert 0 < limit["best_step"] <= limit["step"]
        assert limit["registers"] > 0
        is_packed = name in ("mnist-16", "mnist-128", "digits-adam")
        assert [limit["cache"] is not None, limit["kernels"] is not None] == [is_packed] * 2
        assert (limit["sorting"] is not None) == (is_packed and batch_size is not None)
        assert f"| {name} | {limit['multiply_adds']:,.0f} |" in table.read_text(encoding="utf-8")


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
    digits = table(
        row("fastnet numba", 0.1), row("fastnet numpy", 0.5), row("JAX", 0.3), row("PyTorch eager", 0.6),
        row("PyTorch compiled", 0.25), row("NumPy script, float64", 0.8), row("NumPy script, float32", 0.7),
    )  # fmt: skip
    sums = table(row("fastnet numba", 20.0), row("scikit-learn", 15.0), group="sum")
    alone = table(row("fastnet numba", 0.1), group="alone")
    whole_process = row("fastnet numba, kernels cached", 1.0)
    del whole_process["first_call_seconds"]
    first_fit = table(whole_process, group="first-fit")
    raw = tmp_path / "raw.json"
    raw.write_text(json.dumps(raw_of(first_fit, digits, sums, alone)))
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
            "| `mnist-16`: a title | 10 | 50 | 30 | 25 | - | 70 | **2.50** |",
            "| `sum`: a title | 2000 | - | - | - | 1500 | - | 0.75 |",
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


def test_drop_in_estimators_are_measured_side_by_side(report, tmp_path):
    raw = tmp_path / "raw.json"
    finished = run_benchmarks(
        "--benchmark-enable", "--smoke", f"--benchmark-json={raw}", "-k", "drop_in and (mnist or regressor or one)"
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report.main([str(raw), "--out", str(tmp_path), "--name", "here"], standalone_mode=False)
    (table,), (described,) = tmp_path.glob("here-*.md"), tmp_path.glob("here-*.json")
    written = json.loads(described.read_text(encoding="utf-8"))
    comparisons = written["drop_in"]["comparisons"]
    assert [(each["name"], each["n_samples"]) for each in comparisons] == [("regressor", 2_000), ("predict-one", 1)]
    for each in comparisons:
        for library in ("scikit_learn", "fastnet"):
            assert 0 < each[library]["low"] <= each[library]["median"] <= each[library]["high"]
    assert set(written["drop_in"]["absent"]) == {"mnist", "mnist-float32"}
    assert written["groups"] == []
    text = table.read_text(encoding="utf-8")
    assert "| `MLPRegressor`, max_iter=2 | 2,000 by 8 | float64 |" in text
    assert "- Not here: mnist, as MNIST is missing: " in text


def drop_in(name, theirs, ours, **info):
    figures = {
        "name": name, "title": f"`{name}`", "dtype": "float64", "n_samples": 1_797, "n_features": 64, "n_iter": 130,
        "loss": 0.25, "backend": "numpy", "seconds": {"scikit-learn": theirs, "fastnet": ours},
    }  # fmt: skip
    return {"group": "drop-in", "extra_info": figures | info}


@pytest.fixture
def drop_in_report(report, tmp_path):
    """A report of a workload and of two cases of drop-in estimators, one of which fastnet loses."""
    raw = raw_of(
        table(row("fastnet numba", 0.1), row("JAX", 0.3)),
        drop_in("fit", [6.0, 9.0, 8.0], [2.0, 2.5, 1.9]),
        drop_in("row", [1e-4] * 80 + [9e-4] * 20, [1.5e-4] * 95 + [1.0] * 5, n_samples=1, n_iter=9, backend=None),
        absent={"mnist": "MNIST is missing"},
    )
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    report.main([str(tmp_path / "raw.json"), "--out", str(tmp_path)], standalone_mode=False)
    return tmp_path / "cpu-2025-02-03.json"


def test_drop_in_estimators_have_a_table_of_their_own(drop_in_report):
    lines = drop_in_report.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    heading = next(line for line in lines if line.startswith("## Drop-in estimators"))
    assert [line for line in lines[lines.index(heading) :] if line.startswith(("| `", "- "))] == [
        "| `fit` | 1,797 by 64 | float64 | 8 s (6 s to 9 s) | 2 s (1.9 s to 2.5 s) | 4.00 | numpy | 130 | 0.25 |",
        "| `row` | 1 by 64 | float64 | 100 µs (100 µs to 900 µs) | 150 µs (150 µs to 150 µs) | 0.67 | - | 9 | 0.25 |",
        "- **Slower here:** `row` (float64) takes 1.50 times as long with fastnet.",
        "- Not here: mnist, as MNIST is missing.",
    ]
    described = json.loads(drop_in_report.read_text(encoding="utf-8"))
    assert [group["name"] for group in described["groups"]] == ["mnist-16"]
    fit, row = described["drop_in"]["comparisons"]
    assert fit["times_as_fast"] == pytest.approx(4)
    assert row["scikit_learn"] == pytest.approx({"median": 1e-4, "low": 1e-4, "high": 9e-4})


def test_durations_have_three_figures_and_a_unit(imported):
    duration = imported("drop_in").duration
    seconds = [125.0, 1.0, 0.9999, 0.0123456, 1.5e-5, 2e-7]
    assert [duration(each) for each in seconds] == ["125 s", "1 s", "1000 ms", "12.3 ms", "15 µs", "0.2 µs"]


def test_the_readme_shows_drop_in_estimators_between_marks_of_their_own(imported, drop_in_report, tmp_path):
    readme_table = imported("readme_table")
    readme = tmp_path / "README.md"
    marks = readme_table.BEGIN, readme_table.END, readme_table.DROP_IN_BEGIN, readme_table.DROP_IN_END
    readme.write_text("before\n{}a\n{}between\n{}b\n{}after\n".format(*marks), encoding="utf-8")
    for _ in range(2):  # the second time changes nothing
        readme_table.main([str(drop_in_report), "--readme", str(readme)], standalone_mode=False)
        text = readme.read_text(encoding="utf-8")
        start, end = text.index(marks[2]), text.index(marks[3])
        assert text[start:end].splitlines()[1:] == [
            "",
            "| | X | scikit-learn | fastnet | times as fast |",
            "|---|---:|---:|---:|---:|",
            "| `fit` | 1,797 by 64, float64 | 8 s | 2 s | **4.00** |",
            "| `row` | 1 by 64, float64 | 100 µs | 150 µs | 0.67 |",
            "",
        ]
        assert "| `mnist-16`: a title | 10 |" in text[:start]
        assert text.endswith("after\n")


def test_a_table_of_the_readme_stays_where_the_report_has_no_figures_for_it(imported, written_report, tmp_path):
    readme_table = imported("readme_table")
    readme = tmp_path / "README.md"
    kept = f"{readme_table.DROP_IN_BEGIN}measured before\n{readme_table.DROP_IN_END}"
    readme.write_text(f"{readme_table.BEGIN}{readme_table.END}{kept}", encoding="utf-8")
    readme_table.main([str(written_report), "--readme", str(readme)], standalone_mode=False)
    assert readme.read_text(encoding="utf-8").endswith(kept)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"loss_curve": [1.0, 0.50049], "scores": [0.9049, 0.7951]}, []),
        ({"n_iter": 3}, ["3 epochs, not 2"]),
        ({"loss_curve": [1.0, 0.501]}, ["a loss of 0.501, not 0.5"]),
        ({"loss_curve": [1.0, float("nan")]}, ["a loss of nan, not 0.5"]),
        ({"scores": [0.9, 0.806]}, ["scores that differ by 0.006"]),
        ({"scores": [0.9, float("nan")]}, ["scores that differ by nan"]),
    ],
)
def test_outcomes_that_are_not_the_same_are_told(imported, changed, told):
    outcome = imported("sklearn_sides").Outcome
    expected = {"n_iter": 2, "loss_curve": [1.0, 0.5], "scores": [0.9, 0.8]}
    assert outcome(**expected | changed).differences(outcome(**expected)) == told


def test_losses_are_compared_while_they_are_comparable(imported):
    outcome = imported("sklearn_sides").Outcome
    ours, theirs = outcome(3, [1.0, 0.6, 0.2], 0.9), outcome(3, [1.0, 0.5, 0.3], 0.9)
    assert ours.differences(theirs, 1) == []
    assert ours.differences(theirs, 2) == ["a loss of 0.6, not 0.5"]
    assert ours.differences(theirs, 5) == ["a loss of 0.2, not 0.3"]


def test_every_case_can_be_done_briefly_and_says_what_is_not_the_default(imported):
    cases = imported("sklearn_cases").CASES
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.scaled(1.0) == case for case in cases)
    tabular = next(case for case in cases if case.name == "tabular")
    assert (tabular.title, tabular.parameters["max_iter"]) == ("`MLPClassifier` on a table, max_iter=80", 80)
    brief = tabular.scaled(0.01)
    assert (brief.n_samples, brief.max_iter, brief.rounds) == (2_000, 2, 1)
    digits = next(case for case in cases if case.name == "digits")
    assert (digits.title, digits.parameters) == ("`MLPClassifier` on digits", {"random_state": 0})
