from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from fastnet import BackendUnavailableError, Network, SpecError, available_backends
from fastnet.backends import registry, work
from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.interface import Availability
from fastnet.backends.registry import backend_names, choose_backend, create_backend
from fastnet.backends.work import Work

HEAVY = ("numba", "llvmlite", "cupy", "scipy", "sklearn", "rich", "click", "safetensors", "matplotlib", "pandas")

PLUG_IN = """
from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.interface import Availability

class Backend(NumpyBackend):
    name = "abacus"

    def __init__(self, device, n_threads):
        super().__init__(device)
        self.n_threads = n_threads

class Broken:
    def __init__(self, device, n_threads):
        raise RuntimeError("a bead is missing")
"""


@pytest.fixture
def plug_ins(tmp_path, monkeypatch):
    """A distribution, as an installer would leave it, with a backend that works, one that does not, and an impostor."""
    (tmp_path / "abacus.py").write_text(PLUG_IN)
    metadata = tmp_path / "abacus-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\n")
    points = [
        "abacus = abacus:Backend",
        "broken = abacus:Broken",
        "absent = no_such_module:Backend",
        "numpy = abacus:Broken",
    ]
    (metadata / "entry_points.txt").write_text("\n".join(["[fastnet.backends]", *points]))
    monkeypatch.syspath_prepend(tmp_path)
    registry._factories.cache_clear()
    yield
    sys.modules.pop("abacus", None)
    registry._factories.cache_clear()


@pytest.fixture
def only(monkeypatch):
    """Makes backends unavailable, all but those named."""

    def make(*names):
        def availability(name):
            return Availability(name in names, f"{name} is switched off: switch it on", ("here",))

        def create(name, device="auto", n_threads=None):
            backend = NumpyBackend()
            backend.name, backend.availability = name, lambda: availability(name)
            return backend

        monkeypatch.setattr(registry, "create_backend", create)

    return make


def test_the_argument_comes_before_the_environment_and_that_before_auto(monkeypatch, only):
    only("cupy", "numba", "numpy")
    automatic = choose_backend()
    assert (automatic.backend.name, automatic.reason) == ("cupy", "the first of cupy, numba, numpy that can run here")
    monkeypatch.setenv("FASTNET_BACKEND", "numba")
    for name in (None, "auto"):
        choice = choose_backend(name)
        assert (choice.backend.name, choice.reason) == ("numba", "asked for by FASTNET_BACKEND")
    choice = choose_backend("numpy")
    assert (choice.backend.name, choice.reason) == ("numpy", "asked for by the argument")
    for unset in ("", "auto"):
        monkeypatch.setenv("FASTNET_BACKEND", unset)
        assert choose_backend("auto").backend.name == "cupy"


def test_threads_are_those_of_the_argument_before_the_environment(monkeypatch, plug_ins):
    assert choose_backend("abacus").backend.n_threads is None
    monkeypatch.setenv("FASTNET_NUM_THREADS", "3")
    assert choose_backend("abacus").backend.n_threads == 3
    assert choose_backend("abacus", n_threads=2).backend.n_threads == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5"])
def test_threads_in_the_environment_that_are_no_number_are_told(text, monkeypatch):
    monkeypatch.setenv("FASTNET_NUM_THREADS", text)
    with pytest.raises(SpecError, match=f"FASTNET_NUM_THREADS must be a whole number of at least 1, got '{text}'"):
        choose_backend("numpy")


def test_auto_takes_the_next_one_and_says_why(only):
    only("numpy")
    choice = choose_backend("auto")
    assert choice.backend.name == "numpy"
    passed_over = [f"{name}: {name} is switched off: switch it on" for name in ("cupy", "numba")]
    assert choice.reason == "; ".join(["the first of cupy, numba, numpy that can run here", *passed_over])


def test_on_the_cpu_auto_does_not_ask_for_a_gpu(only):
    only("cupy", "numpy")
    assert choose_backend("auto", "cpu").backend.name == "numpy"


def work_for(processor):
    """Work that a CPU is sooner done with than a GPU, or the other way round."""
    work = Work((1000, 1000, 10), n_rows=4000, n_steps=1000 if processor == "gpu" else 1)
    assert (work.cpu_seconds(1) > work.gpu_seconds) == (processor == "gpu")
    return work


def test_auto_leaves_little_work_to_the_cpu_and_says_so(only):
    only("cupy", "numba", "numpy")
    assert choose_backend("auto", n_threads=1, work=work_for("gpu")).backend.name == "cupy"
    choice = choose_backend("auto", n_threads=1, work=work_for("cpu"))
    assert choice.backend.name == "numba"
    assert choice.reason.startswith(
        "the first of numba, numpy, cupy that can run here; cupy: too little work, for which"
    )
    assert "takes about 0.49 s" in choice.reason


def test_little_work_is_done_where_it_was_asked_for(only, monkeypatch):
    only("cupy", "numba", "numpy")
    little = work_for("cpu")
    assert choose_backend("cupy", work=little).backend.name == "cupy"
    assert choose_backend("auto", "cuda", work=little).backend.name == "cupy"
    monkeypatch.setenv("FASTNET_BACKEND", "cupy")
    assert choose_backend("auto", work=little).backend.name == "cupy"


def test_little_work_is_better_done_on_a_gpu_than_not_at_all(only):
    only("cupy")
    assert choose_backend("auto", work=work_for("cpu")).backend.name == "cupy"


def test_much_work_is_no_reason_for_a_gpu_that_is_not_there(only):
    only("numba", "numpy")
    choice = choose_backend("auto", n_threads=1, work=work_for("gpu"))
    assert choice.backend.name == "numba"
    assert choice.reason.endswith("cupy: cupy is switched off: switch it on")


def test_a_network_chooses_anew_for_every_fit_and_predicts_where_it_was_trained(only, monkeypatch):
    only("cupy", "numba", "numpy")
    asked = []
    monkeypatch.setattr(NumpyBackend, "predict", lambda backend, *_: asked.append(backend.name) or np.ones((1, 1)))
    net = Network([2, 1], output="identity")
    net.predict([[0, 1]])
    assert net.fit([[0, 1]], [1], n_steps=1).backend_name == "numba"
    net.predict([[0, 1]])
    monkeypatch.setattr(work, "_GPU_SECONDS_TO_START", 0.0)
    monkeypatch.setattr(work, "_GPU_SECONDS_PER_STEP", 0.0)
    history = net.fit([[0, 1]], [1], n_steps=1)
    assert (history.backend_name, history.backend_reason) == (
        "cupy",
        "the first of cupy, numba, numpy that can run here",
    )
    net.predict([[0, 1]])
    assert asked == ["numba", "numba", "cupy"]


def test_auto_with_nothing_that_can_run_says_why_for_each(only):
    only()
    with pytest.raises(
        BackendUnavailableError, match=r"no backend can run on device 'auto': cupy: .*; numba: .*; numpy: "
    ):
        choose_backend("auto")


def test_one_asked_for_by_name_is_never_replaced(only, monkeypatch):
    only("numpy")
    with pytest.raises(
        BackendUnavailableError,
        match="backend 'numba', asked for by the argument, cannot run here: numba is switched off: switch it on",
    ):
        choose_backend("numba")
    monkeypatch.setenv("FASTNET_BACKEND", "numba")
    with pytest.raises(BackendUnavailableError, match="backend 'numba', asked for by FASTNET_BACKEND, cannot run here"):
        choose_backend("auto")


def test_history_says_what_ran_and_why(monkeypatch):
    history = Network([2, 1], output="identity", backend="numpy").fit([[0, 1]], [1], n_steps=1)
    assert (history.backend_name, history.backend_reason) == ("numpy", "asked for by the argument")
    assert history.device_name == "cpu"
    assert history.backend_detail == "array operations of NumPy, one call per operation"
    monkeypatch.setenv("FASTNET_BACKEND", "numpy")
    history = Network([2, 1], output="identity").fit([[0, 1]], [1], n_steps=1)
    assert (history.backend_name, history.backend_reason) == ("numpy", "asked for by FASTNET_BACKEND")


def test_a_gpu_that_is_not_there_is_told_with_the_remedy():
    if available_backends()["cupy"].ok:
        pytest.skip("there is one here")
    for ask in (lambda: choose_backend("cupy"), lambda: Network([2, 2], backend="cupy")):
        with pytest.raises(BackendUnavailableError, match=r"backend 'cupy'.*(install|driver|use backend='numba')"):
            ask()
    with pytest.raises(
        BackendUnavailableError, match=r"no backend can run on device 'cuda'.*backend 'numpy' runs on the CPU"
    ):
        choose_backend("auto", "cuda")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "numab"}, "unknown backend 'numab': did you mean 'numba'"),
        ({"name": "pytorch"}, "unknown backend 'pytorch': Choose from auto, cupy, numba, numpy"),
        ({"name": "numpy", "device": "gpu"}, "unknown device 'gpu': Choose from auto, cpu, cuda"),
        ({"name": "auto", "device": "cuda:x"}, "unknown device 'cuda:x': Choose"),
        ({"name": "numpy", "device": "cpu:0"}, "unknown device 'cpu:0': Choose"),
        ({"name": "numpy", "n_threads": 0}, "n_threads must be a whole number of at least 1, got 0"),
    ],
    ids=str,
)
def test_unknown_names_and_numbers_are_told(arguments, message):
    with pytest.raises(SpecError, match=message):
        choose_backend(**arguments)


def test_a_backend_does_not_take_a_device_it_cannot_drive():
    with pytest.raises(BackendUnavailableError, match="backend 'numpy' runs on the CPU, not on 'cuda:1'"):
        choose_backend("numpy", "cuda:1")


def test_plug_ins_are_found_and_come_last(plug_ins):
    assert backend_names() == ["cupy", "numba", "numpy", "abacus", "broken", "absent"]
    history = Network([2, 1], output="identity", backend="abacus").fit([[0, 1]], [1], n_steps=1)
    assert history.backend_name == "abacus"
    with pytest.raises(SpecError, match="did you mean 'abacus'"):
        choose_backend("abbacus")


def test_a_plug_in_cannot_take_the_place_of_a_built_in_backend(plug_ins):
    assert type(create_backend("numpy")) is NumpyBackend


def test_a_broken_plug_in_hides_no_other_backend(plug_ins):
    found = available_backends()
    assert found["numpy"].ok
    assert found["abacus"].ok
    assert found["broken"] == Availability(False, "a bead is missing")
    assert not found["absent"].ok
    assert "backend 'absent' cannot be imported: No module named 'no_such_module'" in found["absent"].reason
    with pytest.raises(BackendUnavailableError, match="'absent' cannot be imported"):
        choose_backend("absent")


def test_importing_fastnet_loads_nothing_heavy():
    assert all(importlib.util.find_spec(name) for name in HEAVY if name != "cupy"), "a name that is none proves nothing"
    script = f"import sys, fastnet; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_a_network_on_numpy_loads_no_other_backend():
    script = (
        "import sys, fastnet\n"
        "fastnet.Network([2, 1], output='identity', backend='numpy').fit([[0, 1]], [1], n_steps=1)\n"
        "print(*[name for name in ('numba', 'cupy', 'rich', 'click', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"
