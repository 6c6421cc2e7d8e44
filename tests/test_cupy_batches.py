"""Mini-batches on an emulated GPU: a few kernels of our own per step, replayed in graphs."""

from __future__ import annotations

import re
import weakref
from dataclasses import replace
from functools import cache
from itertools import pairwise

import emulated_cupy
import numpy as np
import nvrtc
import pytest
from emulated_cupy.mutation import barrier_lines, superfluous_barriers
from emulated_cupy.shorthand import in_every_schedule
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.optimizers import SGD, Adam
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import ACTIVATIONS, HEADS, NetworkSpec, TrainingSpec
from fastnet.testing import Problem, conformance_checks, make_problem, oracle
from fastnet.testing.checks import check_gradients

PAIRS = [(output, loss) for output, losses in HEADS.items() for loss in losses]
SHAPES = ("one-sample", "two-samples-no-hidden-layer", "all-sizes-one", "four-hidden-layers", "ragged-tiles")
SUMS = ("no-bias", "sum", "sum-weighted", "l2", "l2-averaged-weighted", "weighted")
FULL = ("nesterov", "regression", "one-versus-rest")
BATCHES = ("adam-l2", "l2-averaged", "pixels", "of-one")
STEPS = (*FULL, "last-batch-partial", *(f"batches-{case}" for case in BATCHES))
REPEATED = ("adamw", "batches-weighted")

# Every optimizer, every form of data that is taken, and batches of every kind; but not
# everything with everything, as each network has a module of its own to compile.
NUMERICAL = [
    *(f"gradients-{case}" for case in (*SHAPES, *SUMS)),
    *(f"trajectory-{case}" for case in STEPS),
    *(f"repeatable-{case}" for case in REPEATED),
    "large-logits-softmax",
    "large-logits-sigmoid",
]
CHECKS = conformance_checks()
TAKEN = [f"{name}-float32" for name in NUMERICAL]
TAKEN += [name for name in CHECKS if name.startswith("state-") or name == "manners"]

N_MULTIPROCESSORS = 132  # of an H100


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        machine.reset(n_multiprocessors=N_MULTIPROCESSORS)
        yield machine


@pytest.fixture
def batches(machine, monkeypatch):
    """The module of the path, which takes every network or fails."""
    from fastnet.backends.cupy_backend import batches, paths

    def refuse(*_):
        raise AssertionError("this network should be trained by the batches path")

    monkeypatch.setattr(paths, "PATHS", (batches,))
    monkeypatch.setattr(paths, "ReferenceEngine", refuse)
    return batches


@pytest.fixture
def backend(batches):
    return create_backend("cupy")


@pytest.fixture
def same_tiles(batches, monkeypatch):
    """For all networks, so that there are fewer modules to compile."""
    from fastnet.backends.cupy_backend.batch_shapes import Shapes, Tile

    monkeypatch.setattr(batches, "choose_shapes", lambda *_: Shapes(Tile(16, 32), Tile(16, 32)))


@pytest.mark.usefixtures("same_tiles")
@pytest.mark.parametrize("name", TAKEN)
def test_path_conforms(backend, name):
    CHECKS[name](backend)


@pytest.mark.usefixtures("same_tiles")
@pytest.mark.parametrize(("output", "loss"), PAIRS)
def test_every_head_conforms(backend, output, loss):
    check_gradients(backend, layer_sizes=(5, 3), output=output, loss=loss)


# --- Against the reference, beyond the kit ---------------------------------------------------------------------------


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def assert_gradients_agree(problem, backend, tolerance=1e-5):
    loss, gradients = problem.plan(backend).loss_and_gradients()
    expected_loss, expected = oracle(problem).plan(NumpyBackend()).loss_and_gradients()
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    for kind in ("weights", "biases"):
        for actual, wanted in zip(getattr(gradients, kind), getattr(expected, kind), strict=True):
            assert relative_error(actual, wanted) < tolerance


def assert_steps_agree(problem, backend, rates, order, tolerance=1e-4):
    """Losses, penalties, counts, parameters and state after some steps."""
    plan, exact = problem.plan(backend), oracle(problem).plan(NumpyBackend())
    metrics, expected = plan.run(rates, order), exact.run(rates, order)
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.penalty, expected.penalty, rtol=1e-5)
    np.testing.assert_array_equal(metrics.n_correct, expected.n_correct)
    assert relative_error(plan.read_parameters().flat, exact.read_parameters().flat) < tolerance
    for name, array in exact.read_state().items():
        np.testing.assert_allclose(plan.read_state()[name], array, rtol=tolerance, atol=tolerance * np.abs(array).max())


def with_network(problem, **changes):
    return replace(problem, spec=replace(problem.spec, network=replace(problem.spec.network, **changes)))


@cache
def mnist_like():
    """The network of scikit-learn's defaults, its batches, and pixels, most of them zero."""
    options = {"storage": "pixels", "input_scale": 1 / 255, "batch_size": 200, "optimizer": Adam(), "l2": 1e-4}
    return make_problem((784, 100, 10), 330, activation="relu", l2_averaged=True, **options)


def test_network_of_mnist(backend):
    """The whole dataset, and an epoch whose second batch is shorter."""
    assert_gradients_agree(mnist_like(), backend)
    assert_steps_agree(mnist_like(), backend, [1e-3] * 2, np.random.default_rng(0).permutation(330))


@pytest.fixture
def all_activations():
    network = NetworkSpec((6, *range(4, 12), 3), ACTIVATIONS)
    problem = make_problem(network.layer_sizes, 40)
    return replace(problem, spec=TrainingSpec(network, task="multiclass"))


def test_each_layer_has_an_activation_of_its_own(backend, all_activations):
    assert_gradients_agree(all_activations, backend)


def test_no_activation_swallows_nan(backend, all_activations):
    all_activations.parameters.weights[0][0, 0] = np.nan
    plan = all_activations.plan(backend)
    assert np.isnan(plan.run([0.1]).loss).all()
    assert np.isnan(plan.read_parameters().weights[0][0]).any()


@pytest.mark.parametrize("k", range(5))
def test_every_tile(backend, batches, monkeypatch, k):
    """Products that are ragged in all directions, of several stages and slices; rows of weights that are vectors."""
    from fastnet.backends.cupy_backend import batch_shapes

    update = batch_shapes._UPDATE_TILES[k]
    forward = batch_shapes._FORWARD_TILES[k % 4]
    monkeypatch.setattr(batch_shapes, "_FORWARD_TILES", (forward,))
    monkeypatch.setattr(batch_shapes, "_UPDATE_TILES", (update,))
    problem = make_problem((150, 36, 68, 3), 81, weighted=True, optimizer=SGD(momentum=0.9))
    assert len(set(batch_shapes._UPDATE_TILES)) == 1
    assert f"in tiles of {forward} and {update}" in problem.plan(backend).detail
    assert_gradients_agree(problem, backend)
    assert_steps_agree(problem, backend, [0.1, 0.2], None)


def test_more_outputs_than_lanes(backend):
    assert_steps_agree(make_problem((9, 8, 41), 30, optimizer=SGD()), backend, [0.1, 0.2], None)


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"l2": 0.5, "l2_averaged": True}], ids=str)
def test_whole_dataset_in_parts(backend, batches, monkeypatch, options):
    from fastnet.backends.cupy_backend import chunks

    problem = make_problem(n_samples=75, batch_size=8, weighted=True, **options)
    monkeypatch.setattr(batches, "_EVALUATION_ROWS", 10)
    monkeypatch.setattr(chunks, "STEPS_PER_CHUNK", 3)
    assert_gradients_agree(problem, backend)


@pytest.mark.parametrize("l2_averaged", [False, True])
def test_batch_whose_weights_are_all_zero(backend, l2_averaged):
    """Nothing is divided by zero: such a batch follows the penalty alone."""
    problem = make_problem(n_samples=40, batch_size=20, l2=0.5, l2_averaged=l2_averaged)
    dataset = replace(problem.dataset, sample_weight=np.repeat([0.0, 2.0], 20).astype("float32"))
    assert_steps_agree(replace(problem, dataset=dataset), backend, [0.1] * 2, np.arange(40))


def test_fresh_memory_is_not_relied_upon(backend, monkeypatch):
    """Whatever is in it: NaN times zero is no zero."""
    monkeypatch.setattr(emulated_cupy.arrays, "_NEVER_ON_A_DEVICE", 0xFF)
    assert np.isnan(emulated_cupy.arrays.empty(3, np.float32).get()).all()
    problem = three_layers()
    assert_gradients_agree(problem, backend)
    assert_steps_agree(problem, backend, [0.01] * 3, np.random.default_rng(0).permutation(50)[:19])


def test_batches_of_few_samples_and_of_more_than_there_are(backend):
    problem = make_problem(n_samples=19, batch_size=33)
    assert_steps_agree(problem, backend, [0.1] * 3, np.random.default_rng(0).integers(0, 19, 2 * 33 + 1))


# --- Steps, chunks and graphs ----------------------------------------------------------------------------------------


def three_layers(**options):
    return make_problem((70, 12, 9, 3), 50, batch_size=8, weighted=True, l2=0.1, optimizer=Adam(), **options)


def run_steps(backend, cuts=(0, 11)):
    """All that comes of eleven steps, cut into runs; the last batch is a short one."""
    plan = three_layers().plan(backend)
    order, rates = np.random.default_rng(1).integers(0, 50, 11 * 8 - 3), np.linspace(0.01, 0.02, 11)
    runs = [plan.run(rates[start:stop], order[8 * start : 8 * stop]) for start, stop in pairwise(cuts)]
    figures = [np.concatenate([getattr(run, name) for run in runs]) for name in ("loss", "penalty", "n_correct")]
    loss, gradients = plan.loss_and_gradients()
    return np.concatenate(
        [*figures, loss, plan.read_parameters().flat, gradients.flat, *plan.read_state().values()], axis=None
    )


def test_same_bits_from_graphs_chunks_and_runs_of_any_length(backend, machine, monkeypatch):
    from fastnet.backends.cupy_backend import chunks, replay

    monkeypatch.setattr(replay, "GRAPH_LENGTHS", ())
    expected = run_steps(backend)
    assert machine.n_captures == machine.n_graph_launches == 0
    for lengths, cuts, n_launches in (
        ((2,), (0, 11), 5),
        ((4,), (0, 11), 2),
        ((8, 2), (0, 11), 2),
        ((4, 2), (0, 1, 2, 6, 11), 2),
        ((4, 2), (0, 3, 11), 3),
    ):
        machine.n_captures = machine.n_graph_launches = 0
        monkeypatch.setattr(replay, "GRAPH_LENGTHS", lengths)
        np.testing.assert_array_equal(run_steps(backend, cuts), expected)
        assert machine.n_graph_launches == n_launches
        assert machine.n_captures <= len(lengths)
    monkeypatch.setattr(chunks, "STEPS_PER_CHUNK", 5)
    np.testing.assert_array_equal(run_steps(backend), expected)


def run_epochs(backend, cuts):
    """Parameters after three epochs of thirty steps, each cut into runs."""
    plan = make_problem((20, 24, 3), 240, batch_size=8, optimizer=Adam()).plan(backend)
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(240)
        for start, stop in pairwise(cuts):
            plan.run([0.01] * (stop - start), order[8 * start : 8 * stop])
    return plan.read_parameters().flat


@pytest.mark.usefixtures("same_tiles")
def test_short_epochs_are_replayed(backend, machine, monkeypatch):
    """Each graph is recorded once, also when runs begin short and become longer, as training has it."""
    from fastnet.backends.cupy_backend import replay

    whole = run_epochs(backend, (0, 30))
    assert (machine.n_captures, machine.n_graph_launches) == (2, 3 * (3 + 3))
    machine.n_captures = machine.n_graph_launches = 0
    np.testing.assert_array_equal(run_epochs(backend, (0, 1, 3, 7, 15, 30)), whole)
    assert (machine.n_captures, machine.n_graph_launches) == (2, 3 * (1 + 2 + 1 + (1 + 3)))
    monkeypatch.setattr(replay, "GRAPH_LENGTHS", ())
    np.testing.assert_array_equal(run_epochs(backend, (0, 30)), whole)


def test_same_bits_in_every_order_of_threads_and_blocks(backend):
    def compute():
        plan = mnist_like().plan(backend)
        losses = plan.run([1e-3] * 2, np.arange(330)).loss
        return np.concatenate([losses, plan.read_parameters().flat])

    first, *others = in_every_schedule(compute)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_every_barrier_matters(backend):
    """Stages of products, copies, sums over a block, the head's weights."""
    module = three_layers().plan(backend)._engine._module
    assert superfluous_barriers(module, lambda: [run_steps(backend)]) == []
    lines = [text for _, text in barrier_lines(module)]
    own = module.code[module.code.index("namespace batches") :]
    assert len(lines) == own.count("__syncthreads();") + own.count("copy_async_wait<0>();") == 6


@pytest.mark.usefixtures("same_tiles")
def test_step_is_made_of_few_launches(backend, machine):
    for layer_sizes, n_launches in (((5, 3), 2), ((5, 7, 3), 3), ((5, 7, 6, 3), 5)):
        plan, counts = make_problem(layer_sizes, batch_size=4).plan(backend), [machine.n_operations]
        assert f"batches of 4: {n_launches} launches per step" in plan.detail
        plan.run([0.1], np.arange(4))
        for n_steps in (2, 4):
            counts.append(machine.n_operations)
            plan.run([0.1] * n_steps, np.arange(4 * n_steps) % 19)
        counts.append(machine.n_operations)
        assert np.diff(counts, 2)[-1] == 2 * n_launches


# --- Traffic, memory and devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"weighted": True, "l2": 0.1, "optimizer": Adam()}], ids=str)
def test_rates_and_order_are_all_that_a_run_copies(backend, machine, options):
    full, batches = (make_problem(batch_size=size, **options).plan(backend) for size in (None, 8))
    for _ in range(2):
        machine.transfers.clear()
        full.run([0.1] * 40)
        batches.run([0.1] * 40, np.arange(40 * 8 - 5) % 19)
        assert machine.transfers == [
            ("to device", 40 * 2 * 4),
            ("to device", 40 * 2 * 4),
            ("to device", (40 * 8 - 5) * 8),
        ]


@pytest.mark.usefixtures("same_tiles")
def test_data_are_uploaded_once_and_as_they_are(backend, machine):
    backend.availability()
    problem = make_problem((50, 7, 3), 400, storage="uint8", batch_size=8, weighted=True)
    machine.transfers.clear()
    plan = problem.plan(backend)
    plan.run([0.1] * 3, np.arange(24))
    plan.loss_and_gradients()
    uploads = [n_bytes for direction, n_bytes in machine.transfers if direction == "to device"]
    assert uploads.count(400 * 50) == 1
    assert sum(uploads) < 400 * 50 + 2 * 400 * 4 + 2000


def test_all_work_is_done_on_the_chosen_device(machine, batches):
    """The emulation refuses an array of one device while another is current."""
    machine.reset(n_devices=2, n_multiprocessors=N_MULTIPROCESSORS)
    plan = three_layers().plan(create_backend("cupy", "cuda:1"))
    assert np.isfinite(plan.run([0.1] * 40, np.arange(40 * 8) % 50).loss).all()
    assert np.isfinite(plan.loss_and_gradients()[0])


def test_closed_plan_lets_go_of_the_device_memory(backend):
    plan = three_layers().plan(backend)
    plan.run([0.1] * 40, np.arange(40 * 8) % 50)
    plan.loss_and_gradients()
    engine = plan._engine
    memory = engine._steps.memory
    arrays = [weakref.ref(array) for array in (engine._samples.x, memory.inputs, memory.order, plan._flat)]
    del engine, memory
    plan.close()
    assert [array() for array in arrays] == [None] * 4


def test_last_layer_that_needs_much_shared_memory(backend):
    """More than the 48 KB that a kernel has without asking, also beside another plan's that needs less."""
    large, small = (make_problem((hidden, 3), 5, batch_size=4) for hidden in (2100, 1800))
    plans = [large.plan(backend), small.plan(backend)]
    for plan in plans:
        assert np.isfinite(plan.run([0.01] * 2, np.arange(5)).loss).all()


# --- Which networks --------------------------------------------------------------------------------------------------


def blank_problem(layer_sizes, n_samples, batch_size=None, dtype="float32", x_dtype=None):
    """Everything is zero."""
    network = NetworkSpec(layer_sizes, ("relu",) * (len(layer_sizes) - 2), "identity", "squared_error", dtype=dtype)
    x = np.broadcast_to(np.zeros(1, x_dtype or dtype), (n_samples, layer_sizes[0]))
    y = np.zeros((n_samples, layer_sizes[-1]), dtype)
    return Problem(
        TrainingSpec(network, Adam(), batch_size), Parameters(ParameterLayout.of(network), dtype=dtype), Dataset(x, y)
    )


def obstacle(batches, problem):
    from fastnet.backends.cupy_backend.device import DeviceProperties

    return batches.obstacle(problem.spec, problem.dataset, DeviceProperties.of(0))


@pytest.mark.parametrize(
    ("layer_sizes", "n_samples", "batch_size"),
    [
        ((784, 100, 10), 60_000, 200),
        ((784, 128, 10), 60_000, 200),
        ((784, 512, 512, 10), 60_000, 200),
        ((30, 100, 2), 100_000, 200),
        ((64, 32, 10), 1797, None),
        ((64, 32, 10), 1797, 1),
        ((784, 64), 60_000, 500),
    ],
)
def test_networks_that_are_taken(batches, layer_sizes, n_samples, batch_size):
    assert obstacle(batches, blank_problem(layer_sizes, n_samples, batch_size)) is None


def test_what_is_not_taken_and_why(batches):
    from fastnet.backends.cupy_backend.device import DeviceProperties

    taken = blank_problem((784, 100, 10), 60_000, 200)
    assert obstacle(batches, taken) is None
    sparse = replace(taken, dataset=Dataset(csr_array((60_000, 784), dtype="float32"), taken.dataset.targets))
    assert obstacle(batches, sparse) == "X is sparse"
    assert obstacle(batches, blank_problem((5, 4, 3), 10, dtype="float64")) == "the network is float64"
    assert obstacle(batches, blank_problem((5, 4, 3), 10, x_dtype="float64")) == "X is float64"
    assert obstacle(batches, blank_problem((5, 4, 65), 10)) == "65 outputs are more than 64"
    assert obstacle(batches, blank_problem((5, 4, 3), 70_000)) == "70,000 samples per step are more than 65,536"
    large = blank_problem((784, 64), 100)
    small_device = DeviceProperties(n_multiprocessors=40, shared_memory_per_block=65_536)
    message = "the last layer needs 216384 bytes of shared memory, and the device has 65536"
    assert batches.obstacle(large.spec, large.dataset, small_device) == message


@pytest.mark.parametrize(
    ("layer_sizes", "n_samples", "batch_size", "n_multiprocessors"),
    [
        ((784, 100, 10), 42_000, None, 132),  # much work
        ((30, 16, 16, 2), 60_000, None, 132),  # little, but seven blocks of threads would do the larger part of it
        ((10, 64, 1), 65_536, None, 132),
        ((784, 512, 512, 10), 60_000, 500, 40),  # too much for a small device
    ],
)
def test_steps_that_take_long_are_left_to_cublas(batches, layer_sizes, n_samples, batch_size, n_multiprocessors):
    from fastnet.backends.cupy_backend.device import DeviceProperties

    properties = DeviceProperties(n_multiprocessors, shared_memory_per_block=232_448)
    problem = blank_problem(layer_sizes, n_samples, batch_size)
    reason = batches.obstacle(problem.spec, problem.dataset, properties)
    assert re.fullmatch(
        r"a step would take its kernels about [\d,]+ cycles; from [\d,]+ on, cuBLAS is sooner done", reason
    )
    assert batches.cannot_train(problem.spec, problem.dataset, properties) is None
    small = blank_problem(layer_sizes, 3000, 200)
    assert batches.obstacle(small.spec, small.dataset, properties) is None


def test_cycles_are_those_of_the_busiest_multiprocessor():
    """At most 128 multiply-adds per cycle; the update of a layer of one tile is made by one of them."""
    from fastnet.backends.cupy_backend.batch_shapes import step_cycles

    few = NetworkSpec((15, 16, 2), ("relu",))  # two tiles of gradients, of 16 rows at least
    for n_multiprocessors in (1, 2, 132):
        assert step_cycles(few, 50_000, n_multiprocessors) > 50_000 * 16 * 16 / 128
    many = NetworkSpec((784, 512, 512, 10), ("relu", "relu"))
    n_products = 3 * 5000 * (784 * 512 + 512 * 512)
    for n_multiprocessors in (40, 132):
        assert 1 < step_cycles(many, 5000, n_multiprocessors) / (n_products / 128 / n_multiprocessors) < 2


# --- What NVRTC makes of it ------------------------------------------------------------------------------------------


def compile_with_nvrtc(batches, problem, architectures):
    from fastnet.backends.cupy_backend.batch_shapes import choose_shapes
    from fastnet.backends.cupy_backend.modules import module_source, options

    shapes = choose_shapes(problem.spec.network, 200, N_MULTIPROCESSORS)
    macros = batches.macros(problem.spec, problem.dataset.x.dtype, shapes)
    return nvrtc.compile_for_all(module_source(batches.FILES), options(macros), architectures)


@pytest.mark.parametrize(
    ("layer_sizes", "options", "architectures"),
    [
        ((784, 100, 10), {"activation": "relu", "optimizer": Adam(), "storage": "uint8"}, nvrtc.ARCHITECTURES),
        ((784, 128, 50, 10), {"activation": "gelu", "optimizer": Adam()}, (90,)),
        ((300, 64), {"loss": "squared_error", "optimizer": SGD(momentum=0.9)}, (75,)),
    ],
)
def test_compiles_without_spills(batches, layer_sizes, options, architectures):
    usages = compile_with_nvrtc(batches, make_problem(layer_sizes, 2, **options), architectures)
    for architecture in architectures:
        for name, usage in usages[architecture].items():
            assert usage.spill_stores == usage.spill_loads == 0, (architecture, name)
