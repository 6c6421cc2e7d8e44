"""Networks of few parameters on an emulated GPU: all steps by one block of threads."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import emulated_cupy
import numpy as np
import nvrtc
import pytest
from emulated_cupy.shorthand import in_every_schedule
from scipy.sparse import csr_array

from fastnet import recipes, workloads
from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.optimizers import Adam
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import ACTIVATIONS, HEADS, NetworkSpec, TrainingSpec
from fastnet.testing import Problem, conformance_checks, make_problem, oracle

DTYPES = ("float32", "float64")

PAIRS = [f"{output}-{loss}" for output, losses in HEADS.items() for loss in losses]
EVERY_FUNCTION = [
    *(f"gradients-{activation}-{pair}" for activation, pair in zip(cycle(ACTIVATIONS), PAIRS, strict=False)),
    *(f"large-logits-{output}" for output in ("softmax", "sigmoid")),
    *(f"{kind}-{case}" for kind in ("trajectory", "repeatable") for case in ("adamw", "batches-weighted")),
]
SHAPES = ("one-sample", "two-samples-no-hidden-layer", "all-sizes-one", "multilabel-of-one", "two-outputs", "no-bias")
DATA = ("sum", "sum-weighted", "weighted", "l2", "l2-averaged-weighted", "uint8", "pixels", "one-versus-rest")
STEPS = ("nesterov", "regression", "multilabel", "last-batch-partial", "batches-adam-l2", "batches-of-one")
EVERY_KIND = [*(f"gradients-{case}" for case in (*SHAPES, *DATA)), *(f"trajectory-{case}" for case in STEPS)]

# Kernels are compiled for most of these. What is no function's own is checked in float64, as its tolerance is narrow.
CHECKS = conformance_checks()
TAKEN = [f"{name}-float32" for name in EVERY_FUNCTION]
TAKEN += sorted({f"{name}-float64" for name in EVERY_KIND}.difference(TAKEN))
TAKEN += [name for name in CHECKS if name.startswith("state-")] + ["nan-relu", "nan-gelu", "manners"]


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture
def tiny(machine, monkeypatch):
    """The module of the path, which takes every network or fails."""
    from fastnet.backends.cupy_backend import paths, tiny

    def refuse(*_):
        raise AssertionError("this network should be trained by the tiny path")

    monkeypatch.setattr(paths, "PATHS", (tiny,))
    monkeypatch.setattr(paths, "ReferenceEngine", refuse)
    return tiny


@pytest.fixture
def backend(tiny):
    return create_backend("cupy")


@pytest.mark.parametrize("name", TAKEN)
def test_path_conforms(backend, name):
    CHECKS[name](backend)


# --- Against the reference, beyond the kit ---------------------------------------------------------------------------


def assert_gradients_agree(problem, backend, tolerance):
    loss, gradients = problem.plan(backend).loss_and_gradients()
    expected_loss, expected = oracle(problem).plan(NumpyBackend()).loss_and_gradients()
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    error = np.abs(gradients.flat - expected.flat).max() / np.abs(expected.flat).max()
    assert error < tolerance


@pytest.mark.parametrize("options", [{}, {"batch_size": 40}], ids=["full", "batches"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_threads_take_several_samples_each(backend, options, dtype, tolerance):
    """The gradient over all samples, also where the block is as large as a batch of them needs."""
    problem = make_problem((3, 4, 2), 1300, dtype=dtype, weighted=True, **options)
    assert_gradients_agree(problem, backend, tolerance)


def test_batches_larger_than_the_block(backend):
    problem = make_problem((3, 4, 2), 1900, batch_size=700, weighted=True, optimizer=Adam(), dtype="float64")
    order = np.random.default_rng(1).permutation(1900)
    plan, exact = problem.plan(backend), problem.plan(NumpyBackend())
    metrics, expected = plan.run([0.1] * 3, order), exact.run([0.1] * 3, order)
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-12)
    np.testing.assert_array_equal(metrics.n_correct, expected.n_correct)
    np.testing.assert_allclose(plan.read_parameters().flat, exact.read_parameters().flat, rtol=1e-10, atol=1e-13)


def test_each_layer_has_an_activation_of_its_own(backend):
    network = NetworkSpec((3, 4, 3, 4, 2), ("elu", "relu", "sigmoid"), dtype="float64")
    problem = make_problem(network.layer_sizes, 50, dtype="float64")
    problem = replace(problem, spec=TrainingSpec(network, task="multiclass"))
    assert_gradients_agree(problem, backend, 1e-12)


def test_samples_of_another_precision_than_the_network(backend):
    problem = make_problem((3, 4, 2), 50, dtype="float64")
    dataset = replace(problem.dataset, x=problem.dataset.x.astype(np.float32))
    assert_gradients_agree(replace(problem, dataset=dataset), backend, 1e-12)


@pytest.mark.parametrize("l2_averaged", [False, True])
def test_batch_whose_weights_are_all_zero(backend, l2_averaged):
    """Nothing is divided by zero: such a batch follows the penalty alone."""
    problem = make_problem((3, 4, 2), 40, batch_size=20, l2=0.5, l2_averaged=l2_averaged, dtype="float64")
    weight = np.repeat([0.0, 2.0], 20)
    problem = replace(problem, dataset=replace(problem.dataset, sample_weight=weight))
    plan, exact = problem.plan(backend), problem.plan(NumpyBackend())
    metrics, expected = (each.run([0.1] * 2, np.arange(40)) for each in (plan, exact))
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-12)
    np.testing.assert_allclose(metrics.penalty, metrics.loss * [1, 0] + expected.penalty * [0, 1], rtol=1e-12)
    np.testing.assert_allclose(plan.read_parameters().flat, exact.read_parameters().flat, rtol=1e-12)


def test_no_penalty_without_l2_however_large_the_weights(backend):
    """Their squares are infinite in float32; the loss is not, as all samples are zero."""
    problem = make_problem((3, 4, 2), 10)
    problem.parameters.weights[0][:] = 1e25
    problem.dataset.x[:] = 0
    metrics, expected = (problem.plan(each).run([0.1]) for each in (backend, NumpyBackend()))
    assert metrics.loss == pytest.approx(expected.loss, rel=1e-6)
    assert metrics.penalty == [0]


def test_weights_of_the_moons_recipe_after_200_steps(tiny):
    networks, histories = {}, {}
    for backend in ("cupy", "numpy"):
        run = recipes.prepare(recipes.load_recipe("moons"), backend=backend, n_steps=200)
        networks[backend], histories[backend] = run.network, run.fit()
    for kind in ("weights", "biases"):
        pairs = zip(getattr(networks["cupy"], kind), getattr(networks["numpy"], kind), strict=True)
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(histories["cupy"].loss, histories["numpy"].loss, rtol=1e-12)
    assert histories["cupy"].accuracy == histories["numpy"].accuracy


# --- Threads and launches --------------------------------------------------------------------------------------------


def blank_problem(layer_sizes, n_samples, dtype="float32", batch_size=None, optimizer=None):
    """Everything is zero."""
    network = NetworkSpec(layer_sizes, ("relu",) * (len(layer_sizes) - 2), "identity", "squared_error", dtype=dtype)
    spec = TrainingSpec(network, optimizer or Adam(), batch_size)
    x, y = np.zeros((n_samples, layer_sizes[0]), dtype), np.zeros((n_samples, layer_sizes[-1]), dtype)
    return Problem(spec, Parameters(ParameterLayout.of(network), dtype=dtype), Dataset(x, y))


@pytest.mark.parametrize(
    ("layer_sizes", "n_samples", "options", "n_threads"),
    [
        ((2, 5, 1), 1, {}, 32),
        ((2, 5, 1), 240, {}, 256),
        ((2, 5, 1), 513, {}, 288),
        ((2, 5, 1), 513, {"dtype": "float64"}, 192),
        ((2, 3, 1), 10_000, {"dtype": "float64"}, 512),
        ((2, 3, 1), 10_000, {"batch_size": 65}, 96),
        ((2, 3, 1), 40, {"batch_size": 65}, 64),
        ((5, 7, 6, 3), 2560, {}, 256),
    ],
)
def test_number_of_threads(tiny, layer_sizes, n_samples, options, n_threads):
    problem = blank_problem(layer_sizes, n_samples, **options)
    assert tiny.macros(problem.spec, problem.dataset)["N_THREADS"] == n_threads


def test_plan_says_how_it_computes(backend):
    plan = blank_problem((2, 5, 1), 70).plan(backend)
    assert plan.detail == "all steps of a chunk in one launch of one block of 96 threads"


def moons_like(**options):
    return make_problem((2, 5, 1), 700, output="sigmoid", l2=0.1, weighted=True, dtype="float64", **options)


def run_moons(backend, n_steps=5, **options):
    """All that is computed by a block of several warps, whose threads take several samples each."""
    problem = moons_like(**options)
    plan = problem.plan(backend)
    order = np.random.default_rng(1).integers(0, 700, n_steps * 80 - 3) if problem.spec.batch_size else None
    metrics = plan.run(np.linspace(0.1, 0.2, n_steps), order)
    loss, gradients = plan.loss_and_gradients()
    parts = plan.read_parameters().flat, gradients.flat, loss, metrics.loss, metrics.penalty, metrics.n_correct
    return np.concatenate([*parts, *plan.read_state().values()], axis=None)


STEPS_OF_MOONS = pytest.mark.parametrize(
    "options", [{}, {"batch_size": 80, "optimizer": Adam()}], ids=["full", "batches"]
)


@STEPS_OF_MOONS
def test_same_bits_whichever_thread_is_first(backend, options):
    first, *others = in_every_schedule(lambda: run_moons(backend, **options))
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_every_deleted_barrier_shows(tiny, backend, machine):
    from fastnet.backends.cupy_backend.modules import load_module

    expected, problem = run_moons(backend), moons_like()
    module = load_module("tiny.cu", tiny.macros(problem.spec, problem.dataset))
    lines = emulated_cupy.barrier_lines(module)
    assert len(lines) == module.code.count("__syncthreads();") == 2
    for machine.deleted_line, _ in lines:
        assert any(not np.array_equal(found, expected) for found in in_every_schedule(lambda: run_moons(backend)))


@STEPS_OF_MOONS
def test_long_launches_are_cut(tiny, backend, machine, monkeypatch, options):
    expected, counts = run_moons(backend, 11, **options), [machine.n_operations]
    for seconds_per_step in (0.02, 1.0):
        monkeypatch.setattr(tiny, "_SECONDS_PER_STEP", seconds_per_step)
        np.testing.assert_array_equal(run_moons(backend, 11, **options), expected)
        counts.append(machine.n_operations)
    in_twos, one_by_one = np.diff(counts)
    assert one_by_one - in_twos == 11 - 6


def test_thousands_of_steps_are_one_launch(backend, machine):
    plan, counts = make_problem((2, 3, 1), 4, output="sigmoid", bias=False).plan(backend), [machine.n_operations]
    for n_steps in (1, 4000):
        plan.run(np.full(n_steps, 0.1))
        counts.append(machine.n_operations)
    assert np.diff(counts, 2) == 0


# --- Traffic and devices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"weighted": True, "l2": 0.1, "l2_averaged": True, "optimizer": Adam()}], ids=str
)
def test_rates_and_order_are_all_that_a_run_copies(backend, machine, options):
    full, batches = (make_problem((2, 3, 2), 19, batch_size=size, **options).plan(backend) for size in (None, 8))
    machine.transfers.clear()
    full.run([0.1] * 3)
    assert machine.transfers == [("to device", 3 * 4 * 8)]
    batches.run([0.1] * 3, np.arange(19))
    assert machine.transfers[1:] == [("to device", 3 * 4 * 8), ("to device", 19 * 8)]


def test_data_are_uploaded_once_and_as_they_are(backend, machine):
    backend.availability()
    problem = make_problem((20, 2, 1), 500, output="sigmoid", storage="uint8", weighted=True)
    machine.transfers.clear()
    plan = problem.plan(backend)
    plan.run([0.1] * 3)
    plan.loss_and_gradients()
    uploads = [n_bytes for direction, n_bytes in machine.transfers if direction == "to device"]
    assert uploads.count(500 * 20) == 1
    assert sum(uploads) < 500 * 20 + 2 * 500 * 4 + 500


def test_all_work_is_done_on_the_chosen_device(machine, tiny):
    """The emulation refuses an array of one device while another is current."""
    machine.reset(n_devices=2)
    problem = make_problem((2, 3, 2), 19, batch_size=8, weighted=True, optimizer=Adam())
    plan = problem.plan(create_backend("cupy", "cuda:1"))
    assert np.isfinite(plan.run([0.1] * 3, np.arange(19)).loss).all()
    assert np.isfinite(plan.loss_and_gradients()[0])


# --- Which networks --------------------------------------------------------------------------------------------------


def obstacle(tiny, problem):
    from fastnet.backends.cupy_backend.device import DeviceProperties

    return tiny.obstacle(problem.spec, problem.dataset, DeviceProperties.of(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("layer_sizes", "n_samples"),
    [((2, 5, 1), 240), ((2, 3, 1), 10_000), ((2, 3, 1), 4), ((4, 8, 3), 150), ((30, 1), 569)],
)
def test_small_networks_are_taken(tiny, layer_sizes, n_samples, dtype):
    assert obstacle(tiny, blank_problem(layer_sizes, n_samples, dtype)) is None


def test_what_is_not_taken_and_why(tiny):
    taken = blank_problem((5, 7, 6, 3), 13_000)
    assert obstacle(tiny, taken) is None
    sparse = replace(taken, dataset=replace(taken.dataset, x=csr_array(taken.dataset.x)))
    assert obstacle(tiny, sparse) == "X is sparse"
    assert obstacle(tiny, blank_problem((5, 7, 7, 3), 10)) == "a thread would hold 166 numbers, more than 154"
    long = "a step of 31,724,000 operations is too long for one multiprocessor"
    assert obstacle(tiny, blank_problem((5, 7, 6, 3), 14_000)) == long
    assert obstacle(tiny, blank_problem((5, 7, 6, 3), 13_000, "float64")) is not None
    many = blank_problem((1, 1), (1 << 20) + 1, batch_size=10)
    assert obstacle(tiny, many) == "1,048,577 samples are more than 1,048,576"


# --- What NVRTC makes of it ------------------------------------------------------------------------------------------


def compile_with_nvrtc(tiny, spec, dataset, architectures=nvrtc.ARCHITECTURES):
    """What the kernel takes on each architecture."""
    from fastnet.backends.cupy_backend.modules import module_source, options

    compiled = nvrtc.compile_for_all(module_source("tiny.cu"), options(tiny.macros(spec, dataset)), architectures)
    return {architecture: usages["fastnet_tiny"] for architecture, usages in compiled.items()}


def shape(name, dtype):
    """A workload, or the network of most numbers that the path takes."""
    if name == "largest":
        problem = make_problem((5, 7, 6, 3), 300, activation="gelu", optimizer=Adam(), dtype=dtype)
        return problem.spec, problem.dataset
    loaded = workloads.load(name)
    dataset = replace(loaded.dataset, x=loaded.dataset.x.astype(dtype))
    return replace(loaded.spec, network=replace(loaded.spec.network, dtype=dtype)), dataset


# The oldest that is supported, and one of the newer ones, of which the others hardly differ.
SOME = (75, 90)


@pytest.mark.parametrize(
    ("name", "dtype", "architectures"),
    [
        ("moons", "float32", nvrtc.ARCHITECTURES),
        ("moons", "float64", SOME),
        ("sum", "float32", SOME),
        ("sum", "float64", SOME),
        ("largest", "float32", SOME),
    ],
)
def test_compiles_without_spills(tiny, name, dtype, architectures):
    for architecture, usage in compile_with_nvrtc(tiny, *shape(name, dtype), architectures).items():
        assert usage.spill_stores == usage.spill_loads == 0, architecture


def test_numbers_of_two_registers_each_spill_a_little(tiny):
    """153 of them do not fit into 255."""
    usage = compile_with_nvrtc(tiny, *shape("largest", "float64"), (90,))[90]
    assert usage.spill_stores <= 1500
