"""Networks with one narrow hidden layer on an emulated GPU, whose tensor cores round toward zero."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import cycle

import emulated_cupy
import numpy as np
import nvrtc
import pytest
from emulated_cupy.shorthand import in_every_schedule
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import ACTIVATIONS, HEADS, NetworkSpec, TrainingSpec
from fastnet.testing import Problem, checks, make_problem, oracle

H100, A100, ADA, TURING = 232_448, 166_912, 101_376, 65_536  # bytes of shared memory that a block can have
PIXELS = {"storage": "pixels", "input_scale": 1 / 255}
REGRESSION = {"output": "identity", "loss": "squared_error"}
MNIST = {"layer_sizes": (784, 16, 10), "n_samples": 70, "activation": "relu"}


@pytest.fixture(autouse=True)
def machine():
    """By default a small device, on which few threads are started that have nothing to do."""
    with emulated_cupy.installed() as machine:
        machine.reset(n_multiprocessors=2, shared_memory_per_block_optin=TURING)
        yield machine


@pytest.fixture
def h100(machine):
    machine.reset(n_multiprocessors=3, shared_memory_per_block_optin=H100)


@pytest.fixture
def narrow(machine, monkeypatch):
    """The module of the path, which takes every network or fails, be there ever so few samples."""
    from fastnet.backends.cupy_backend import narrow, paths

    def refuse(*_):
        raise AssertionError("this network should be trained by the narrow path")

    monkeypatch.setattr(paths, "PATHS", (narrow,))
    monkeypatch.setattr(paths, "ReferenceEngine", refuse)
    monkeypatch.setattr(narrow, "MIN_NUMBERS", 0)
    return narrow


@pytest.fixture
def backend(narrow):
    return create_backend("cupy")


# --- The conformance kit, on networks of this kind -------------------------------------------------------------------

# Every head, with all activations and optimizers in turn; kernels are compiled for each.
OPTIMIZERS = (Adam(), SGD(), SGD(momentum=0.9), AdamW(weight_decay=0.5), SGD(momentum=0.9, nesterov=True))
PAIRS = [(output, loss) for output, losses in HEADS.items() for loss in losses]
FUNCTIONS = list(zip(PAIRS, cycle(ACTIVATIONS), cycle(OPTIMIZERS), strict=False))
SMALL = {"layer_sizes": (9, 7, 3), "n_samples": 40}


@pytest.mark.parametrize(("pair", "activation", "optimizer"), FUNCTIONS, ids=str)
def test_every_function_conforms(backend, pair, activation, optimizer):
    options = {"output": pair[0], "loss": pair[1], "activation": activation, "optimizer": optimizer, **SMALL}
    checks.check_gradients(backend, **options)
    n_steps = 12 if pair != ("exp", "squared_error") else 1  # exponentials diverge
    checks.check_trajectory(backend, n_steps, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"l2": 0.3},
        {"l2": 30.0, "l2_averaged": True, "weighted": True},
        {"weighted": True},
        {"reduction": "sum"},
        {"reduction": "sum", "weighted": True},
        {"bias": False},
        PIXELS,
        {"output": "sigmoid", "task": "multiclass"},
        {"output": "sigmoid", "layer_sizes": (9, 7, 1)},
        {"n_samples": 1},
    ],
    ids=str,
)
def test_every_kind_conforms(backend, options):
    options = SMALL | options
    checks.check_gradients(backend, **options)
    checks.check_trajectory(backend, **options)
    checks.check_repeatable(backend, **options)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_large_logits(backend, output):
    problem = make_problem(**SMALL, activation="identity", output=output)
    problem.parameters.flat[:] *= 100
    assert_gradients_agree(problem, backend, 1e-6)


# --- Gradients -------------------------------------------------------------------------------------------------------


def gradient_errors(problem, backend):
    """Relative error of the loss, and in the 2-norm of the gradient of each layer's weights and biases."""
    loss, gradients = problem.plan(backend).loss_and_gradients()
    expected_loss, expected = oracle(problem).plan(NumpyBackend()).loss_and_gradients()
    errors = {"loss": abs(loss - expected_loss) / abs(expected_loss)}
    for kind in ("weights", "biases"):
        for layer, (a, r) in enumerate(zip(getattr(gradients, kind), getattr(expected, kind), strict=True)):
            errors[f"{kind}[{layer}]"] = np.linalg.norm(a - r) / max(np.linalg.norm(r), np.finfo("float32").tiny)
    return errors


def assert_gradients_agree(problem, backend, tolerance):
    errors = gradient_errors(problem, backend)
    assert max(errors.values()) < tolerance, errors


@pytest.mark.parametrize(
    "options",
    [
        MNIST | PIXELS,
        MNIST,
        MNIST | PIXELS | {"n_samples": 1},
        MNIST | {"n_samples": 33},
        {"layer_sizes": (30, 5, 3), "n_samples": 77},
        {"layer_sizes": (30, 5, 3), "n_samples": 77, "storage": "uint8", "input_scale": 1 / 255},
        {"layer_sizes": (1, 16, 16), "n_samples": 100},
        {"layer_sizes": (1, 1, 1), "n_samples": 5, **REGRESSION},
        {"layer_sizes": (120, 17, 2), "n_samples": 500, **PIXELS},
        {"layer_sizes": (150, 32, 13), "n_samples": 40, "output": "sigmoid"},
    ],
    ids=str,
)
def test_gradients_are_as_exact_as_of_float32(h100, backend, options):
    assert_gradients_agree(make_problem(**options), backend, 1e-6)


def test_sums_over_many_tiles_do_not_stay_in_tensor_cores(narrow, backend, machine):
    """There each addition rounds toward zero. All terms have one sign here, so that what is lost adds up."""
    from fastnet.backends.cupy_backend.narrow_layout import choose_layout, macros

    machine.reset(n_multiprocessors=1, shared_memory_per_block_optin=TURING)
    problem = make_problem((16, 3, 1), 3000, storage="uint8", activation="identity", **REGRESSION)
    problem.parameters.flat[:] = np.abs(problem.parameters.flat)
    problem = replace(problem, dataset=Dataset(problem.dataset.x, np.full((3000, 1), -1e3, np.float32)))
    layout = choose_layout(problem.spec.network, True, TURING)
    keeps = [macros(problem.spec, layout, tiles)["SUMS_STAY_IN_TENSOR_CORES"] for tiles in (8, 9)]
    assert keeps == [1, 0]
    assert 3000 / (32 * layout.n_teams) > 9
    assert_gradients_agree(problem, backend, 2e-7)


@pytest.mark.parametrize(("divisor", "input_scale"), [(1, 1 / 255), (255, 2.0)])
def test_floats_that_are_bytes_become_bytes(backend, divisor, input_scale):
    problem = make_problem(**SMALL, storage="uint8", input_scale=input_scale)
    x = problem.dataset.x.astype(np.float32) / np.float32(divisor)
    problem = replace(problem, dataset=replace(problem.dataset, x=x))
    plan = problem.plan(backend)
    assert "X, as bytes," in plan.detail
    assert plan._engine._x.nbytes == 40 * 16
    assert_gradients_agree(problem, backend, 1e-6)
    problem.dataset.x[39, 8] += 0.25
    assert "X, as floats in two halves," in problem.plan(backend).detail
    assert_gradients_agree(problem, backend, 1e-6)


# --- Magnitudes ------------------------------------------------------------------------------------------------------


def rescaled(problem, x=1.0, weights=1.0, output_weights=1.0, targets=1.0):
    """The problem with its numbers multiplied; X and W1 by feature."""
    parameters = problem.parameters.copy()
    parameters.weights[0][:] *= np.float32(weights) if np.isscalar(weights) else np.float32(weights)[:, None]
    parameters.weights[1][:] *= np.float32(output_weights)
    samples, values = problem.dataset.x * np.float32(x), problem.dataset.targets * np.float32(targets)
    return replace(problem, parameters=parameters, dataset=Dataset(samples, values))


SPREAD = 10.0 ** np.linspace(-4, 4, 9)
MAGNITUDES = {
    "targets of 1e4": {"targets": 1e4},
    "targets of 1e-5": {"targets": 1e-5, "output_weights": 1e-5},
    "weights of 1e4": {"weights": 1e4, "output_weights": 1e-3},
    "weights of 1e-6": {"weights": 1e-6},
    "both beyond their range": {"targets": 1e6, "weights": 1e4},
    "X of 1e-15": {"x": 1e-15},
    "X of 1e15": {"x": 1e15, "weights": 1e-15},
    "features of 1e-4 to 1e4": {"x": SPREAD, "output_weights": 1e-3},
    "features of 1e-4 to 1e4, weights to match": {"x": SPREAD, "weights": 1 / SPREAD},
}


@pytest.mark.parametrize("magnitudes", MAGNITUDES.values(), ids=MAGNITUDES)
def test_numbers_of_any_magnitude(backend, magnitudes):
    """What halves cannot hold makes the device wait for other scales; no step is lost, none is made twice."""
    problem = rescaled(make_problem(**SMALL, activation="identity", **REGRESSION), **magnitudes)
    assert_gradients_agree(problem, backend, 2e-6)

    plan, exact = problem.plan(backend), oracle(problem).plan(NumpyBackend())
    loss, gradients = exact.loss_and_gradients()
    rates = np.linspace(1e-4, 2e-4, 5) * loss / np.sum(gradients.flat**2)
    metrics, expected = plan.run(rates), exact.run(rates)
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-5)
    read, expected_read = plan.read_parameters().flat, exact.read_parameters().flat
    assert np.linalg.norm(read - expected_read) < 1e-5 * np.linalg.norm(expected_read)


def test_scales_change_in_the_middle_of_a_run_however_it_is_cut(backend):
    """Rates of 1e4 throw the parameters out of range, and back in steps that are made by graphs and without."""
    problem = make_problem(**SMALL, activation="tanh", **REGRESSION)
    rates = np.full(45, 1e-3)
    rates[[5, 20, 40]] = 1e3, 1e-6, 1e4
    results, exponents = [], []
    for cuts in ([45], [1] * 45, [6, 14, 21, 4]):
        plan = problem.plan(backend)
        scales = plan._engine._scales
        exponents.append([(scales._weight_exponent, scales._delta_exponent)])
        losses = []
        for part in np.split(rates, np.cumsum(cuts)[:-1]):
            losses.append(plan.run(part).loss)
            exponents[-1].append((scales._weight_exponent, scales._delta_exponent))
        results.append(np.concatenate([*losses, plan.read_parameters().flat]))
    assert len(set(exponents[1])) > 2
    assert np.isfinite(results[0]).all()
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    losses = oracle(problem).plan(NumpyBackend()).run(rates[:6]).loss
    np.testing.assert_allclose(results[0][:6], losses, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_not_finite_goes_through(backend, layer, value):
    """It is no matter of scales: the run goes on and its losses tell."""
    problem = make_problem(**SMALL)
    problem.parameters.weights[layer][3, 1] = value
    plan = problem.plan(backend)
    assert not np.isfinite(plan.run(np.full(3, 0.1)).loss[1:]).any()
    assert plan._engine._chunks.step.get() == 3
    assert not np.isfinite(plan.loss_and_gradients()[1].flat).all()


def test_frozen_device_passes_over_steps(backend):
    """They would find the same again; but a chunk may have thousands of them left."""
    plan = make_problem(**SMALL).plan(backend)
    engine = plan._engine
    engine._status[0] = 1
    engine._elements.fill(7)
    engine._prepare(plan._flat)()
    engine._sums(plan._flat)()
    assert (engine._elements.get() == 7).all()
    engine._status[0] = 0
    engine._sums(plan._flat)()
    assert not (engine._elements.get() == 7).any()


def test_zeros_are_in_range(backend):
    problem = make_problem(**SMALL, **REGRESSION)
    problem.parameters.flat[:] = 0
    problem.dataset.targets[:] = 0
    plan = problem.plan(backend)
    assert not plan.run(np.full(2, 0.1)).loss.any()
    problem.dataset.x[:] = 0
    assert not problem.plan(backend).run(np.full(2, 0.1)).loss.any()


def test_feature_that_is_always_zero(backend):
    problem = make_problem(**SMALL)
    problem.dataset.x[:, 4] = 0
    problem.parameters.weights[0][4] = 1e6
    assert_gradients_agree(problem, backend, 1e-6)


# --- Bits, barriers and graphs ---------------------------------------------------------------------------------------


def everything(plan, n_steps):
    """What a run leaves, and the gradient after it, in one array."""
    metrics = plan.run(np.linspace(0.1, 0.2, n_steps))
    loss, gradients = plan.loss_and_gradients()
    parts = plan.read_parameters().flat, gradients.flat, loss, metrics.loss, metrics.penalty, metrics.n_correct
    return np.concatenate([*parts, *plan.read_state().values()], axis=None)


# Two teams of two warps each, that take three tiles; in the second form X is copied two tiles ahead.
FORMS = {
    "bytes": ({"layer_sizes": (120, 5, 3), **PIXELS}, 32_000, 2),
    "floats": ({"layer_sizes": (120, 5, 3)}, 75_000, 3),
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def form_problem(form, machine):
    options, shared_memory, n_stages = FORMS[form]
    machine.reset(n_multiprocessors=1, shared_memory_per_block_optin=shared_memory)
    problem = make_problem(n_samples=94, weighted=True, l2=0.1, optimizer=Adam(), **options)
    from fastnet.backends.cupy_backend.narrow_layout import choose_layout

    layout = choose_layout(problem.spec.network, form == "bytes", shared_memory)
    assert (layout.n_teams, layout.team_warps, layout.tile_samples, layout.n_stages) == (2, 2, 16, n_stages)
    return problem


@EVERY_FORM
def test_same_bits_whichever_thread_is_first(backend, form_problem):
    first, *others = in_every_schedule(lambda: everything(form_problem.plan(backend), 2))
    for other in others:
        np.testing.assert_array_equal(other, first)


@EVERY_FORM
def test_every_deleted_barrier_shows(backend, form_problem, machine):
    plan = form_problem.plan(backend)
    loss, gradients = plan.loss_and_gradients()
    lines = emulated_cupy.barrier_lines(plan._engine._step_kernel.module)
    # Of the step: two waits for copies, five barriers of teams and three of the block; and one of the update. Beyond
    # them there is the wait of a device that is frozen.
    assert len(lines) == 11
    assert sum("synchronize_team" in text for _, text in lines) == 5
    for machine.deleted_line, text in lines:
        found = in_every_schedule(lambda: outcome(plan))
        assert any(not np.array_equal(each, [loss, *gradients.flat]) for each in found), text


def outcome(plan):
    """The loss and the gradient, or the emulation's complaint."""
    try:
        loss, gradients = plan.loss_and_gradients()
    except (RuntimeError, IndexError) as error:
        return str(error)
    return [loss, *gradients.flat]


def test_graphs_give_the_same_bits_as_launches_one_by_one(backend, machine):
    problem = make_problem(**SMALL, optimizer=Adam(), l2=0.1)
    at_once, one_by_one = problem.plan(backend), problem.plan(backend)
    rates = np.linspace(0.1, 0.2, 70)
    losses = at_once.run(rates).loss
    assert machine.n_graph_launches == 2 + 3  # of 32 and of 2 steps
    np.testing.assert_array_equal(np.concatenate([one_by_one.run([rate]).loss for rate in rates]), losses)
    assert machine.n_graph_launches == 5
    np.testing.assert_array_equal(one_by_one.read_parameters().flat, at_once.read_parameters().flat)


def test_runs_longer_than_a_chunk(backend, monkeypatch):
    from fastnet.backends.cupy_backend import chunks

    problem = make_problem(**SMALL, optimizer=Adam(), l2=0.1)
    expected = everything(problem.plan(backend), 16)
    monkeypatch.setattr(chunks, "STEPS_PER_CHUNK", 8)
    np.testing.assert_array_equal(everything(problem.plan(backend), 16), expected)


def test_plan_goes_on_from_another_ones_state(backend):
    problem = make_problem(**SMALL, optimizer=Adam(), l2=0.1)
    first, second = problem.plan(backend), problem.plan(backend)
    first.run([0.1] * 3)
    second.write_parameters(first.read_parameters())
    second.write_state(first.read_state())
    np.testing.assert_array_equal(second.run([0.1] * 3).loss, first.run([0.1] * 3).loss)


# --- Traffic and devices ---------------------------------------------------------------------------------------------


def test_a_run_copies_its_rates_and_reads_whether_it_is_frozen(backend, machine):
    plan = make_problem(**SMALL, **PIXELS, weighted=True).plan(backend)
    plan.run([0.1] * 40)
    machine.transfers.clear()
    plan.run([0.1] * 40)
    assert machine.transfers == [("to device", 40 * 2 * 4), ("to host", 8)]


def test_a_step_is_two_launches(backend, machine):
    plan, counts = make_problem(**SMALL, l2=0.1).plan(backend), [machine.n_operations]
    for n_steps in (10, 20, 40):
        plan.run([0.1] * n_steps)
        counts.append(machine.n_operations)
    assert np.diff(counts, 2)[1:] == [2 * 20]


@pytest.mark.parametrize(("storage", "n_bytes"), [("uint8", 200 * 9), ("dense", 200 * 9 * 4)])
def test_data_are_uploaded_once(backend, machine, storage, n_bytes):
    backend.availability()
    problem = make_problem(**SMALL | {"n_samples": 200}, storage=storage, weighted=True)
    machine.transfers.clear()
    plan = problem.plan(backend)
    plan.run([0.1] * 3)
    uploads = [n_bytes for direction, n_bytes in machine.transfers if direction == "to device"]
    assert uploads.count(n_bytes) == 1
    records, parameters = 200 * 4 * 4, problem.parameters.flat.nbytes
    assert sum(uploads) < n_bytes + records + parameters + 300


def test_memory_of_the_caller_is_not_written_to_where_the_device_shares_it(backend, machine):
    """Rows of 16 floats need no padding, and are split in halves where they lie."""
    problem = make_problem(**SMALL | {"layer_sizes": (16, 4, 3)})
    expected = everything(problem.plan(backend), 2)
    before = problem.dataset.x.copy()
    machine.has_unified_memory = True
    np.testing.assert_array_equal(everything(problem.plan(backend), 2), expected)
    np.testing.assert_array_equal(problem.dataset.x, before)


def test_all_work_is_done_on_the_chosen_device(machine, narrow):
    """The emulation refuses an array of one device while another is current."""
    machine.reset(n_devices=2, n_multiprocessors=2, shared_memory_per_block_optin=TURING)
    plan = make_problem(**SMALL, weighted=True, optimizer=Adam(), l2=0.1).plan(create_backend("cupy", "cuda:1"))
    assert np.isfinite(plan.run([0.1] * 40).loss).all()
    assert np.isfinite(plan.loss_and_gradients()[0])


def test_closed_plan_lets_go_of_the_device_memory(backend):
    plan = make_problem(**SMALL, optimizer=Adam(), l2=0.1).plan(backend)
    plan.run([0.1] * 40)
    plan.loss_and_gradients()
    engine = plan._engine
    arrays = [weakref.ref(array) for array in (engine._x, engine._elements, plan._flat, *plan._state.values())]
    del engine
    gc.disable()  # what only a cycle keeps would be found some time later
    try:
        plan.close()
        assert [array() for array in arrays] == [None] * 5
    finally:
        gc.enable()


def test_detail_says_how_x_is_kept_and_shared_out(backend, machine):
    machine.reset(n_multiprocessors=132, shared_memory_per_block_optin=H100)
    assert blank_problem((784, 16, 10), 10_000).plan(backend).detail == (
        "X, as bytes, is read once per step by tensor cores, in 132 blocks of 2 teams of 7 warps"
    )


# --- Which networks --------------------------------------------------------------------------------------------------


def blank_problem(layer_sizes, n_samples, x_dtype="uint8", **options):
    network = NetworkSpec(layer_sizes, ("relu",) * (len(layer_sizes) - 2), **options)
    dataset = Dataset(np.ones((n_samples, layer_sizes[0]), x_dtype), np.zeros(n_samples, np.int32))
    return Problem(TrainingSpec(network, task="multiclass"), Parameters(ParameterLayout.of(network)), dataset)


def obstacle(problem, shared_memory=H100):
    from fastnet.backends.cupy_backend import narrow
    from fastnet.backends.cupy_backend.device import DeviceProperties

    return narrow.obstacle(problem.spec, problem.dataset, DeviceProperties(132, shared_memory))


@pytest.mark.parametrize("x_dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layer_sizes", [(784, 16, 10), (784, 10, 10), (64, 32, 10), (30, 16, 2)])
def test_narrow_networks_are_taken(machine, layer_sizes, x_dtype):
    assert obstacle(blank_problem(layer_sizes, 3000, x_dtype)) is None


def test_what_is_not_taken_and_why(machine):
    taken = blank_problem((784, 16, 10), 100)
    assert obstacle(taken) is None
    sparse = replace(taken, dataset=replace(taken.dataset, x=csr_array(taken.dataset.x)))
    assert obstacle(sparse) == "X is sparse"
    batches = replace(taken, spec=replace(taken.spec, batch_size=10))
    assert obstacle(batches) == "batches are not read in the order of samples"
    assert obstacle(blank_problem((784, 16, 10), 100, dtype="float64")) == "halves are not exact enough for float64"
    assert obstacle(blank_problem((784, 10), 100)) == "0 hidden layers instead of one"
    assert obstacle(blank_problem((784, 16, 16, 10), 100)) == "2 hidden layers instead of one"
    assert obstacle(blank_problem((784, 33, 10), 100)) == "33 hidden units are more than 32"
    assert obstacle(blank_problem((784, 16, 17), 100)) == "17 outputs are more than 16"
    assert obstacle(blank_problem((784, 16, 10), 80)) == "X holds 62,720 numbers, fewer than 65,536"
    as_float64 = replace(taken, dataset=replace(taken.dataset, x=taken.dataset.x.astype(float)))
    assert obstacle(as_float64) == "X is float64"
    wide = "features in {} do not fit into the {:,} bytes of shared memory and the registers of a block"
    assert obstacle(taken, TURING) == "784 " + wide.format("bytes", TURING)
    noise = blank_problem((1500, 16, 10), 100, "float32")
    noise.dataset.x[0, 0] = 0.3
    assert obstacle(noise) == "1,500 " + wide.format("floats", H100)
    assert obstacle(blank_problem((1500, 16, 10), 100)) is None
    assert obstacle(blank_problem((2000, 16, 10), 100)) == "2,000 " + wide.format("bytes", H100)


@pytest.mark.parametrize(
    ("layer_sizes", "in_bytes", "shared_memory", "expected"),
    [
        ((784, 16, 10), True, H100, (2, 7, 32, 2)),
        ((784, 16, 10), False, H100, (1, 7, 16, 3)),
        ((784, 16, 10), True, A100, (2, 7, 16, 3)),
        ((784, 16, 10), True, ADA, (1, 7, 16, 2)),
        ((784, 16, 10), False, ADA, None),
        ((784, 16, 10), True, TURING, None),
        ((784, 32, 10), True, H100, (1, 10, 32, 2)),
        ((500, 32, 10), True, H100, (1, 7, 32, 3)),
        ((30, 16, 2), True, H100, (11, 1, 32, 2)),
        ((30, 16, 2), True, TURING, (3, 1, 32, 2)),
        ((64, 32, 10), True, H100, (8, 1, 32, 2)),
    ],
)
def test_layout_is_chosen_by_shared_memory(machine, layer_sizes, in_bytes, shared_memory, expected):
    """Teams, their warps, samples of a tile, stages. That the kernels need as much as is reckoned, they assert."""
    from fastnet.backends.cupy_backend.narrow_layout import choose_layout

    layout = choose_layout(NetworkSpec(layer_sizes, ("relu",)), in_bytes, shared_memory)
    chosen = layout and (layout.n_teams, layout.team_warps, layout.tile_samples, layout.n_stages)
    assert chosen == expected


# --- What NVRTC makes of it ------------------------------------------------------------------------------------------


def compile_with_nvrtc(layer_sizes, in_bytes, shared_memory, architectures, tiles_of_team=5, **options):
    from fastnet.backends.cupy_backend.modules import module_source
    from fastnet.backends.cupy_backend.modules import options as compiler_options
    from fastnet.backends.cupy_backend.narrow_engine import SOURCES
    from fastnet.backends.cupy_backend.narrow_layout import choose_layout, macros

    spec = make_problem(layer_sizes, 1, activation="relu", **options).spec
    layout = choose_layout(spec.network, in_bytes, shared_memory)
    defines = macros(spec, layout, tiles_of_team)
    return nvrtc.compile_for_all(module_source(SOURCES), compiler_options(defines), architectures)


def test_registers_of_mnist_16(machine):
    """The two teams have all registers of a multiprocessor, 128 for each thread: in bytes, what does not fit."""
    spilled = {75: 24, 80: 0, 86: 0, 89: 0, 90: 0, 100: 28, 120: 32}
    compiled = compile_with_nvrtc((784, 16, 10), True, H100, nvrtc.ARCHITECTURES)
    for architecture, usages in compiled.items():
        step, update = usages["fastnet_narrow_step"], usages["fastnet_narrow_update"]
        assert step.registers <= 128
        assert step.spill_stores <= spilled[architecture], architecture
        assert (update.spill_stores, update.registers <= 64) == (0, True)


@pytest.mark.parametrize(
    ("layer_sizes", "in_bytes", "options", "registers", "spilled"),
    [
        ((784, 16, 10), False, {"tiles_of_team": 100}, 255, 0),
        ((784, 16, 10), True, {"tiles_of_team": 100}, 128, 40),
        ((784, 32, 10), True, {"optimizer": Adam(), "l2": 0.1}, 168, 0),
        ((784, 16, 16), True, REGRESSION, 128, 40),
    ],
)
def test_registers_of_other_shapes(machine, layer_sizes, in_bytes, options, registers, spilled):
    usages = compile_with_nvrtc(layer_sizes, in_bytes, H100, (90,), **options)[90]
    assert usages["fastnet_narrow_step"].registers <= registers
    assert usages["fastnet_narrow_step"].spill_stores <= spilled


def test_storage_compiles(machine):
    from fastnet.backends.cupy_backend.modules import module_source, options

    compiled = nvrtc.compile_for_all(module_source("narrow_storage.cu"), options({}))
    assert all(usage.spill_stores == 0 for usages in compiled.values() for usage in usages.values())
