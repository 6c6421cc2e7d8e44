"""The CuPy backend's wide path: products of halves that are as exact as those of floats, on an emulated GPU."""

from __future__ import annotations

import weakref
from dataclasses import replace

import emulated_cupy
import numpy as np
import nvrtc
import pytest
from emulated_cupy import barrier_lines
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.cupy_backend.functions import activation_name
from fastnet.backends.cupy_backend.halves import HalvesLayout, find_bytes, holds_bytes
from fastnet.backends.cupy_backend.memory import estimate_needs
from fastnet.backends.registry import create_backend
from fastnet.data import Dataset
from fastnet.optimizers import Adam
from fastnet.spec import ACTIVATIONS
from fastnet.testing import conformance_checks, make_problem, oracle

CHECKS = {
    name: check
    for name, check in conformance_checks(("float32",)).items()
    if ("uint8" in name or "pixels" in name) and "batches" not in name and "prediction" not in name
}
TRUE_FLOAT32, TF32 = 68, 77


@pytest.fixture
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture
def wide(machine, monkeypatch):
    """The path's module; it is the only one beside the generic one, and no work is too small for it."""
    from fastnet.backends.cupy_backend import paths, wide

    monkeypatch.setattr(wide, "LEAST_FLOPS", 0)
    monkeypatch.setattr(paths, "PATHS", (wide,))
    return wide


@pytest.fixture
def backend(wide):
    return create_backend("cupy")


def open_plan(problem, backend):
    plan = problem.plan(backend)
    assert plan.detail.startswith("first layer by cuBLAS on halves")
    return plan


def bytes_problem(layer_sizes=(30, 20, 4), n_samples=70, **options):
    return make_problem(layer_sizes, n_samples, storage="pixels", input_scale=1 / 255, **options)


def gradient_errors(problem, backend):
    """Of the gradient of each array, relative to the reference's in float64, in the 2-norm."""
    _, actual = open_plan(problem, backend).loss_and_gradients()
    _, expected = oracle(problem).plan(NumpyBackend()).loss_and_gradients()
    return [
        relative(a, r) for a, r in zip(actual.weights + actual.biases, expected.weights + expected.biases, strict=True)
    ]


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", CHECKS)
def test_emulated_backend_conforms(backend, name):
    CHECKS[name](backend)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_with_every_activation(backend, activation):
    assert max(gradient_errors(bytes_problem(activation=activation), backend)) < 2e-6


@pytest.mark.parametrize(
    "options",
    [
        {"layer_sizes": (8, 8, 3)},  # no padding
        {"layer_sizes": (9, 17, 3)},
        {"layer_sizes": (1, 1, 2)},
        {"layer_sizes": (33, 300, 5, 3)},  # more units than threads in a block
        {"layer_sizes": (30, 5)},  # the first layer is the last one
        {"layer_sizes": (30, 5), "bias": False},
        {"layer_sizes": (30, 20, 9, 4), "bias": False, "l2": 0.3, "weighted": True, "reduction": "sum"},
        {"n_samples": 1},
        {"n_samples": 700},  # several batches
        {"layer_sizes": (30, 20, 1), "output": "sigmoid"},
        {"layer_sizes": (30, 20, 2), "output": "identity", "loss": "squared_error"},
    ],
    ids=str,
)
def test_gradients_of_networks_of_all_shapes(backend, options):
    assert max(gradient_errors(bytes_problem(**options), backend)) < 4e-6


def test_several_passes_over_many_samples(backend, monkeypatch):
    from fastnet.backends.cupy_backend import halves

    for name, value in {"_MOST_BATCHES": 3, "_FEWEST_SAMPLES": 4, "_MOST_SAMPLES": 16}.items():
        monkeypatch.setattr(halves, name, value)
    layout = halves.HalvesLayout.of(200, 30, 20)
    assert (layout.n_passes, layout.n_batches, layout.batch_samples, layout.n_padded_samples) == (5, 3, 14, 210)
    assert max(gradient_errors(bytes_problem(n_samples=200), backend)) < 1e-6


@given(st.integers(1, 10**7), st.integers(1, 3000), st.integers(1, 3000))
def test_batches_hold_all_samples_and_are_short(n_samples, n_features, n_units):
    layout = HalvesLayout.of(n_samples, n_features, n_units)
    assert n_samples <= layout.n_padded_samples < n_samples + layout.n_passes * layout.n_batches * layout.batch_samples
    assert layout.n_padded_samples <= n_samples + layout.n_passes * (layout.batch_samples + layout.n_batches)
    assert layout.batch_samples <= 2048
    assert layout.n_batches <= 32
    for padded, size in ((layout.n_padded_features, n_features), (layout.n_padded_units, n_units)):
        assert size <= padded < size + 8
        assert padded % 8 == 0


# --- Exactness ------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_layer(wide):
    from fastnet.backends.cupy_backend.device import DeviceProperties

    return lambda x, n_units: wide.FirstLayer(x, 1.0, n_units, "identity", DeviceProperties(3, 0))


def draw_bytes(n_samples, n_features, low=0):
    return np.random.default_rng(0).integers(low, 256, (n_samples, n_features)).astype(np.uint8)


@pytest.mark.parametrize("low", [0, 200])
@pytest.mark.parametrize(("n_samples", "bound"), [(5000, 1e-6), (65_536, 4e-6)])
def test_long_sums_that_are_rounded_toward_zero_stay_exact(machine, make_layer, n_samples, bound, low):
    """At worst all terms have one sign. In one sum of 65,536 the error would be 1e-4: see the last line."""
    import cupy

    x = draw_bytes(n_samples, 11, low)
    d_z = np.random.default_rng(1).normal(size=(n_samples, 9)).astype(np.float32)
    d_z = 1e-6 * (np.abs(d_z) if low else d_z)
    expected = x.astype(np.float64).T @ d_z.astype(np.float64) / 255
    gradient = cupy.empty((11, 9), np.float32)
    make_layer(x, 9).backward(cupy.asarray(d_z), 1 / 255, gradient)
    assert relative(gradient.get(), expected) < bound
    if n_samples > 10_000 and low:
        halves = [cupy.asarray(each.astype(np.float16)) for each in (x, 1e6 * d_z)]
        product = cupy.empty((11, 9), np.float32)
        from fastnet.backends.cupy_backend.products import multiply_halves

        multiply_halves(halves[0].T, halves[1], product)
        exact = halves[0].get().astype(np.float64).T @ halves[1].get().astype(np.float64)
        assert relative(product.get(), exact) > 5e-5


def test_bias_gradient_of_many_samples_is_exact(wide, make_layer):
    """No thread adds up all rows, which would take long, too: the error of such a sum is ten times as large."""
    import cupy

    d_z = np.random.default_rng(0).random((200_000, 3), np.float32)
    layer, d_bias = make_layer(np.zeros((200_000, 1), np.uint8), 3), cupy.empty(3, np.float32)
    wide.WideOperations().affine_backward(layer, cupy.asarray(d_z), 1.0, cupy.empty((1, 3), np.float32), d_bias)
    assert relative(d_bias.get(), d_z.sum(axis=0, dtype=np.float64)) < 1e-6


@pytest.mark.parametrize("spread", [0, 3])
def test_weights_have_22_bits_over_a_wide_range(machine, make_layer, spread):
    """With exact sums, so that what remains is the error of the halves: half a unit of the 22nd bit at most."""
    import cupy

    machine.truncating_tensor_cores = False
    random, x = np.random.default_rng(0), np.eye(64, dtype=np.uint8)
    weight = (random.normal(size=(64, 40)) * np.exp(spread * random.normal(size=(64, 40)))).astype(np.float32)
    z, _ = make_layer(x, 40).forward(cupy.asarray(weight), None, 1.0)
    error = np.abs(z.get().astype(np.float64) - weight)
    assert (error <= 2.0**-22 * np.abs(weight) + 2.0**-50 * np.abs(weight).max()).all()
    assert error.any(), "a float has 24 bits"


@pytest.mark.parametrize("exponent", [-110, -40, 1, 60, 110])
def test_powers_of_two_change_no_bit(make_layer, exponent):
    """The scale follows the largest magnitude, so that nothing overflows or vanishes."""
    import cupy

    x, random = draw_bytes(50, 12), np.random.default_rng(0)
    weight, d_z = random.normal(size=(12, 7)).astype(np.float32), random.normal(size=(50, 7)).astype(np.float32)
    layer, factor, results = make_layer(x, 7), np.float32(2.0**exponent), []
    for scale in (np.float32(1), factor):
        z, _ = layer.forward(cupy.asarray(scale * weight), None, 1.0)
        gradient = cupy.empty((12, 7), np.float32)
        layer.backward(cupy.asarray(scale * d_z), 1.0, gradient)
        results.append((z.get(), gradient.get()))
    for one, scaled in zip(*results, strict=True):
        np.testing.assert_array_equal(factor * one, scaled)


def test_zeros_give_zeros(make_layer):
    import cupy

    layer = make_layer(draw_bytes(30, 5), 4)
    z, _ = layer.forward(cupy.zeros((5, 4), np.float32), cupy.asarray(np.arange(4, dtype=np.float32)), 1.0)
    np.testing.assert_array_equal(z.get(), np.tile(np.arange(4, dtype=np.float32), (30, 1)))
    gradient = cupy.empty((5, 4), np.float32)
    layer.backward(cupy.zeros((30, 4), np.float32), 1.0, gradient)
    np.testing.assert_array_equal(gradient.get(), np.zeros((5, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(backend, value):
    problem = bytes_problem()
    problem.parameters.weights[0][3, 5] = value
    assert not np.isfinite(open_plan(problem, backend).run([0.1]).loss).any()


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_floats_that_were_bytes_are_kept_as_bytes(backend, machine, scale):
    problem = bytes_problem(n_samples=90)
    x = problem.dataset.x.astype(np.float32) * np.float32(scale)
    network = replace(problem.spec.network, input_scale=1 / 255 / scale)
    floats = replace(problem, spec=replace(problem.spec, network=network), dataset=replace(problem.dataset, x=x))
    assert max(gradient_errors(floats, backend)) < 1e-6
    assert ("to device", x.size) in machine.transfers  # a byte for each


# --- Running --------------------------------------------------------------------------------------------------------


def test_schedules_of_threads_change_no_bit(machine, backend):
    results = []
    for schedule in ("forward", "reverse", "random"):
        machine.schedule = schedule
        plan = open_plan(bytes_problem((30, 20, 4), 300), backend)
        losses = plan.run([0.5] * 3).loss
        results.append((losses, plan.read_parameters().flat))
    for losses, flat in results[1:]:
        np.testing.assert_array_equal(losses, results[0][0])
        np.testing.assert_array_equal(flat, results[0][1])


def test_every_barrier_is_needed(machine, backend):
    """Without it the largest magnitude is wrong, and with it the scale."""
    from fastnet.backends.cupy_backend.modules import load_module

    problem = bytes_problem((30, 20, 4), 300)
    problem.parameters.weights[0].flat[300] = (
        8  # found by the second block, and by the second thread of the next kernel
    )

    def run():
        plan = open_plan(problem, backend)
        plan.run([0.5] * 2)
        return plan.read_parameters().flat

    expected = run()
    module = load_module("wide.cu", {"ACTIVATION": activation_name("tanh")})
    lines = barrier_lines(module)
    assert len(lines) == 2
    for number, text in lines:
        differs = []
        for schedule in ("forward", "reverse", "random"):
            machine.schedule, machine.deleted_line = schedule, number
            try:
                differs.append(not np.array_equal(run(), expected))
            except (RuntimeError, IndexError):
                differs.append(True)
        machine.deleted_line = None
        assert any(differs), f"line {number}, {text}, can be deleted"


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_kernels_compile_for_every_architecture_without_spills(activation):
    from fastnet.backends.cupy_backend.functions import read_source

    source = "\n".join(map(read_source, ("device.cuh", "functions.cuh", "wide.cu")))
    options = ("-std=c++17", f"-DACTIVATION={activation_name(activation)}")
    for architecture, usages in nvrtc.compile_for_all(source, options).items():
        assert len(usages) == 4
        for name, usage in usages.items():
            assert usage.spill_stores == usage.spill_loads == 0, f"{name} on sm_{architecture}: {usage}"


def test_run_copies_nothing_and_data_are_uploaded_as_bytes(backend, machine):
    problem = bytes_problem((30, 20, 4), 300, weighted=True, optimizer=Adam(), l2=0.1)
    backend.availability()
    machine.transfers.clear()
    plan = open_plan(problem, backend)
    dataset = problem.dataset
    sizes = [
        dataset.x.size,
        *(each.nbytes for each in (dataset.targets, dataset.sample_weight, problem.parameters.flat)),
    ]
    assert sorted(machine.transfers) == sorted(("to device", size) for size in sizes)
    machine.transfers.clear()
    metrics = plan.run([0.1] * 3)
    plan.synchronize()
    assert machine.transfers == []
    assert np.isfinite(metrics.loss).all()


def test_other_layers_are_computed_as_permitted(backend, machine):
    open_plan(bytes_problem((30, 20, 10, 4), precision="tf32"), backend).run([0.1])
    assert sorted(machine.products) == [TRUE_FLOAT32] * 2 + [TF32] * 6


def test_all_work_is_done_on_the_chosen_device(machine, wide):
    machine.reset(n_devices=3)
    plan = open_plan(bytes_problem(), create_backend("cupy", "cuda:2"))
    assert np.isfinite(plan.run([0.1] * 2).loss).all()
    assert machine.current_device == 0


@pytest.mark.parametrize("layer_sizes", [(200, 40, 4), (20, 300, 4), (20, 60, 200, 4)])
def test_what_is_reckoned_is_what_a_plan_takes(machine, backend, layer_sizes):
    problem = bytes_problem(layer_sizes, 3000)
    backend.availability()
    machine.memory = type(machine.memory)()
    plan = open_plan(problem, backend)
    plan.run([0.1] * 2)
    needs = estimate_needs("wide", problem.spec, problem.dataset).total
    assert 0.97 * machine.memory.peak < needs < 1.02 * machine.memory.peak


def test_closed_plan_lets_go_of_the_device_memory(backend, machine):
    plan = open_plan(bytes_problem(), backend)
    plan.run([0.1])
    layer = weakref.ref(plan._engine._x)
    plan.close()
    assert layer() is None


# --- Choosing -------------------------------------------------------------------------------------------------------


def pixels(n_samples=42_000, n_features=784):
    return np.broadcast_to(np.uint8(7), (n_samples, n_features))


@pytest.mark.parametrize(
    ("options", "x", "reason"),
    [
        ({}, pixels(), None),
        ({}, pixels().astype(np.float32), None),
        ({"layer_sizes": (784, 512, 512, 10)}, pixels(10_000), None),
        ({"batch_size": 200}, pixels(), "batches are too small"),
        ({"dtype": "float64"}, pixels(), "not exact enough for float64"),
        ({}, csr_array((42_000, 784), dtype=np.float32), "X is sparse"),
        ({"layer_sizes": (784, 16, 10)}, pixels(), "takes 2e+09 operations, too few"),
        ({}, pixels(1000), "too few"),
        ({}, np.full((42_000, 784), 0.5, np.float32), "other numbers than bytes"),
    ],
    ids=["pixels", "floats", "deep", "batches", "float64", "sparse", "narrow", "few", "other floats"],
)
def test_what_the_path_is_for(machine, options, x, reason):
    from fastnet.backends.cupy_backend import wide
    from fastnet.backends.cupy_backend.device import DeviceProperties

    options = {"layer_sizes": (784, 128, 10), "n_samples": 1} | options
    spec = make_problem(**options).spec
    found = wide.obstacle(spec, Dataset(x, np.zeros(x.shape[0], np.int32)), DeviceProperties(132, 232_448))
    assert found is None if reason is None else reason in found


def test_what_it_is_not_for_takes_the_generic_path(wide):
    plan = make_problem((30, 20, 4), storage="dense").plan(create_backend("cupy"))
    assert plan.detail.startswith("products by cuBLAS")


TABLES = {
    "whole": lambda u: u.astype(np.float32),
    "divided": lambda u: (u / 255).astype(np.float32),
    "divided in float32": lambda u: u / np.float32(255),
    "multiplied": lambda u: u * np.float32(1 / 255),
}


def samples(x):
    return Dataset(x, np.zeros(x.shape[0], np.int32))


@pytest.mark.parametrize("table", TABLES)
def test_bytes_are_found_in_floats(table):
    x = np.arange(256, dtype=np.uint8)[np.random.default_rng(0).integers(0, 256, (3000, 5))]
    floats = TABLES[table](x)
    assert holds_bytes(samples(floats))
    found, scale = find_bytes(samples(floats))
    np.testing.assert_array_equal(found, x, strict=True)
    assert scale == pytest.approx(1 if table == "whole" else 1 / 255)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", ["up", "negative", "large", "half"])
def test_one_other_number_is_found(table, change):
    x = TABLES[table](np.arange(256, dtype=np.uint8)[:, None] % np.arange(1, 20, dtype=np.uint8)).repeat(20, axis=0)
    assert holds_bytes(samples(x))
    one = TABLES[table](np.uint8(1)) if table != "divided" else np.float32(1 / 255)
    last = {"up": np.nextafter(3 * one, np.float32(9)), "negative": -one, "large": 256 * one, "half": one / 2}
    x[-1, -1] = last[change]
    assert not holds_bytes(samples(x))


def test_bytes_are_bytes_and_what_is_sparse_or_double_is_not():
    x = np.eye(5, dtype=np.uint8)
    assert holds_bytes(samples(x))
    assert find_bytes(samples(x)) == (x, 1.0)
    assert not holds_bytes(samples(x.astype(np.float64)))
    assert not holds_bytes(samples(csr_array(x.astype(np.float32))))
