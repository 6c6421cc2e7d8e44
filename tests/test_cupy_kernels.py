"""Every CUDA kernel, compiled as C++, against the reference, on values from the whole range and NaN."""

from __future__ import annotations

import emulated_cupy
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyNamespace
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.parameters import ParameterLayout
from fastnet.reference import HEAD_FUNCTIONS, Operations, initial_state
from fastnet.spec import ACTIVATIONS, HEADS, NetworkSpec, TrainingSpec

PAIRS = [(output, loss) for output, losses in HEADS.items() for loss in losses]
DTYPES = ("float32", "float64")
NUMPY = Operations(NumpyNamespace())


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


@pytest.fixture
def cupy(machine):
    import cupy

    return cupy


@pytest.fixture
def operations(machine):
    from fastnet.backends.cupy_backend.operations import CupyOperations

    return CupyOperations()


def range_of_values(dtype):
    """Both zeros, both infinities, NaN, and magnitudes from 1e-30 to 1e4 of both signs."""
    magnitudes = np.concatenate([np.logspace(-30, 0, 31), np.linspace(0.01, 30, 400), [88.0, 104.0, 710.0, 1e3, 1e4]])
    special = [0.0, -0.0, np.inf, -np.inf, np.nan]
    return np.concatenate([-magnitudes[::-1], magnitudes, special]).astype(dtype)


def assert_equal_to_rounding(actual, expected, dtype, absolute_ulps=0):
    """Element by element; NaN and infinities where the reference has them, and there alone."""
    actual = actual if isinstance(actual, np.ndarray) else actual.get()
    assert actual.dtype == expected.dtype == np.dtype(dtype)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    np.testing.assert_allclose(actual, expected, rtol=8 * eps, atol=tiny + absolute_ulps * eps, equal_nan=True)


def reference(function, *arguments):
    with np.errstate(all="ignore"):
        return function(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_and_its_derivative(cupy, operations, activation, dtype):
    z = range_of_values(dtype)[:, None]
    one = np.ones((1, 1), dtype)
    d_h = np.linspace(-2, 2, z.size, dtype=dtype)[:, None]
    expected_z, expected_h = reference(NUMPY.affine_activation, activation, z, one, None, 1.0)
    expected_d_z = reference(NUMPY.activation_backward, activation, d_h, expected_z, expected_h)

    actual = operations.affine_activation(activation, cupy.asarray(z), cupy.asarray(one), None, 1.0)
    assert_equal_to_rounding(actual[0], expected_z, dtype)
    assert_equal_to_rounding(actual[1], expected_h, dtype)
    # From the same z and h: near 1 the derivative magnifies the rounding of h.
    d_z = operations.activation_backward(activation, *map(cupy.asarray, (d_h, expected_z, expected_h)))
    # GELU's derivative is a sum whose terms cancel below zero.
    assert_equal_to_rounding(d_z, expected_d_z, dtype, absolute_ulps=4 if activation == "gelu" else 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_layer_scales_products_but_not_biases(cupy, operations, activation, scale, bias):
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(6, 5)), random.normal(size=(5, 3))
    shift = random.normal(size=3) if bias else None
    on_device = [None if array is None else cupy.asarray(array) for array in (x, weight, shift)]
    for actual, expected in zip(
        operations.affine_activation(activation, *on_device, scale),
        NUMPY.affine_activation(activation, x, weight, shift, scale),
        strict=True,
    ):
        np.testing.assert_allclose(actual.get(), expected, rtol=1e-13)

    d_z = random.normal(size=(6, 3))
    d_weight, d_bias = np.empty((5, 3)), np.empty(3) if bias else None
    NUMPY.affine_backward(x, d_z, scale, d_weight, d_bias)
    d_weight_on_device, d_bias_on_device = cupy.empty((5, 3)), cupy.empty(3) if bias else None
    operations.affine_backward(on_device[0], cupy.asarray(d_z), scale, d_weight_on_device, d_bias_on_device)
    np.testing.assert_allclose(d_weight_on_device.get(), d_weight, rtol=1e-13)
    if bias:
        np.testing.assert_allclose(d_bias_on_device.get(), d_bias, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 3), (256, 1), (257, 5), (1000, 40), (5003, 2)])
def test_bias_gradient_is_the_sum_of_all_rows(cupy, operations, shape, dtype):
    """Of whole numbers, whose sums are exact in any order."""
    d_z = np.random.default_rng(0).integers(-99, 100, shape).astype(dtype)
    d_bias = cupy.empty(shape[1], dtype)
    operations.affine_backward(
        cupy.zeros((shape[0], 2), dtype), cupy.asarray(d_z), 1.0, cupy.empty((2, shape[1]), dtype), d_bias
    )
    np.testing.assert_array_equal(d_bias.get(), d_z.sum(axis=0), strict=True)


def test_bias_gradient_of_many_samples_is_exact(cupy, operations):
    """No thread adds up all rows, which would take long, too: the error of such a sum is ten times as large."""
    d_z = np.random.default_rng(0).random((200_000, 3), np.float32)
    d_bias = cupy.empty(3, np.float32)
    operations.affine_backward(
        cupy.zeros((200_000, 1), np.float32), cupy.asarray(d_z), 1.0, cupy.empty((1, 3), np.float32), d_bias
    )
    np.testing.assert_allclose(d_bias.get(), d_z.sum(axis=0, dtype=np.float64), rtol=1e-6)


def head_problem(output, loss, dtype, spread):
    random = np.random.default_rng(0)
    logits = (spread * random.normal(size=(40, 4))).astype(dtype)
    if (output, loss) == ("softmax", "cross_entropy"):
        return logits, random.integers(0, 4, 40).astype(np.int32)
    low, high = {"poisson": (0, 3), "gamma": (1, 4)}.get(loss, (0, 2))
    return logits, random.integers(low, high, logits.shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", [1.0, 1e4])
@pytest.mark.parametrize(("output", "loss"), PAIRS)
def test_each_sample_of_a_head(cupy, operations, output, loss, spread, dtype):
    """One sample at a time, so that an infinite loss of one does not hide another's."""
    logits, targets = head_problem(output, loss, dtype, spread)
    logits[3, 2], logits[4, 0], logits[5] = np.nan, np.inf, -np.inf
    if targets.ndim == 2:
        logits[6] = targets[6]  # the kink of the absolute error
    spec = TrainingSpec(NetworkSpec((1, 4), (), output, loss, dtype=dtype, reduction="sum"))
    for sample in range(len(logits)):
        row, target = logits[sample : sample + 1], targets[sample : sample + 1]
        losses, d_logits = reference(
            lambda row=row, target=target: HEAD_FUNCTIONS[output, loss](row, target, xp=NUMPY.xp)
        )
        actual_loss, actual, _ = operations.head(spec, cupy.asarray(row), cupy.asarray(target), None)
        # A loss near zero is the difference of two numbers as large as the largest logit.
        finite = np.abs(row[np.isfinite(row)]).max(initial=1.0)
        atol = 8 * np.finfo(dtype).eps * finite
        np.testing.assert_allclose(float(actual_loss), losses[0], rtol=64 * np.finfo(dtype).eps, atol=atol)
        np.testing.assert_allclose(actual.get(), d_logits, rtol=64 * np.finfo(dtype).eps, atol=atol)
        if sample == 3 and output == "softmax":
            assert np.isnan(actual.get()).all()  # one NaN spoils the whole row


@pytest.mark.parametrize("weighting", ["none", "some", "all zero"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("output", "loss"), PAIRS)
def test_reduction_over_weighted_samples(cupy, operations, output, loss, reduction, weighting):
    logits, targets = head_problem(output, loss, "float64", 1.0)
    weight = {"none": None, "some": np.arange(40) % 4 / 2, "all zero": np.zeros(40)}[weighting]
    spec = TrainingSpec(NetworkSpec((1, 4), (), output, loss, dtype="float64", reduction=reduction))
    expected_loss, expected, expected_count = NUMPY.head(spec, logits, targets, weight)
    on_device = [None if array is None else cupy.asarray(array) for array in (logits, targets, weight)]
    actual_loss, actual, count = operations.head(spec, *on_device)
    np.testing.assert_allclose(float(actual_loss), expected_loss, rtol=1e-12)
    np.testing.assert_allclose(actual.get(), expected, rtol=1e-12, atol=1e-15)
    assert int(count) == expected_count == 0


@pytest.mark.parametrize(
    ("task", "output", "loss"),
    [("multiclass", *pair) for pair in PAIRS] + [("multilabel", "sigmoid", loss) for loss in HEADS["sigmoid"]],
)
def test_correct_predictions_with_ties_and_nan(cupy, operations, task, output, loss):
    logits, targets = head_problem(output, loss, "float64", 0.4)
    logits = np.round(logits, 1)  # ties, and probabilities of exactly one half
    logits[7, 1:3] = np.nan
    if task == "multiclass" and targets.ndim == 2:
        shift = {"identity": -1, "exp": 1}.get(output, 0)
        targets = np.eye(4)[np.random.default_rng(1).integers(0, 4, 40)] + shift
    spec = TrainingSpec(NetworkSpec((1, 4), (), output, loss, dtype="float64"), task=task)
    for sample in range(len(logits)):
        row, target = logits[sample : sample + 1], targets[sample : sample + 1]
        expected = NUMPY.head(spec, row, target, None)[2]
        assert int(operations.head(spec, cupy.asarray(row), cupy.asarray(target), None)[2]) == expected, sample
    *_, total = operations.head(spec, cupy.asarray(logits), cupy.asarray(targets), None)
    assert int(total) == NUMPY.head(spec, logits, targets, None)[2] > 0
    assert total.dtype == np.int64


@pytest.mark.parametrize("loss", HEADS["sigmoid"])
def test_probability_of_one_half_predicts_no(cupy, operations, loss):
    spec = TrainingSpec(NetworkSpec((1, 1), (), "sigmoid", loss), task="multilabel")
    logits = cupy.asarray(np.zeros((3, 1), "float32"))
    targets = cupy.asarray(np.array([[0], [1], [0]], "float32"))
    assert int(operations.head(spec, logits, targets, None)[2]) == 2


def test_l2_penalty_adds_to_the_gradient(cupy, operations):
    random = np.random.default_rng(0)
    weights, d_weights = random.normal(size=(2, 50)).astype("float32")
    on_device = cupy.asarray(d_weights)
    penalty = operations.penalty(0.3, cupy.asarray(weights), on_device)
    assert float(penalty) == pytest.approx(0.15 * np.sum(weights.astype("float64") ** 2), rel=1e-12)
    np.testing.assert_allclose(on_device.get(), d_weights + np.float32(0.3) * weights, rtol=1e-6)


OPTIMIZERS = [
    SGD(),
    SGD(momentum=0.9),
    SGD(momentum=0.9, nesterov=True),
    Adam(beta_1=0.8, beta_2=0.9, epsilon=1e-3),
    AdamW(weight_decay=0.5),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_optimizer_updates(cupy, operations, optimizer, dtype):
    network = NetworkSpec((5, 4, 3), ("relu",), dtype=dtype)
    spec, size = TrainingSpec(network, optimizer), ParameterLayout.of(network).size
    random = np.random.default_rng(0)
    flat = random.normal(size=size).astype(dtype)
    state = initial_state(optimizer, flat, xp=np)
    flat_on_device, state_on_device = cupy.asarray(flat), {name: cupy.asarray(each) for name, each in state.items()}
    for n_updates, rate in enumerate([0.1, 0.03, 0.2, 0.0], start=1):
        gradient = random.normal(size=size).astype(dtype)
        NUMPY.update(spec, flat, gradient, state, rate, n_updates)
        operations.update(spec, flat_on_device, cupy.asarray(gradient), state_on_device, rate, n_updates)
        np.testing.assert_allclose(flat_on_device.get(), flat, rtol=1e-5 if dtype == "float32" else 1e-13)
    for name, expected in state.items():
        np.testing.assert_allclose(
            state_on_device[name].get(), expected, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-7
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_nan_gradient_gives_nan_parameters(cupy, operations, optimizer):
    spec = TrainingSpec(NetworkSpec((2, 2), (), dtype="float64"), optimizer)
    flat = cupy.zeros(6)
    state = initial_state(optimizer, flat, xp=cupy)
    gradient = cupy.asarray(np.array([np.nan, 1, 1, 1, 1, np.nan]))
    operations.update(spec, flat, gradient, state, 0.1, 1)
    np.testing.assert_array_equal(np.isnan(flat.get()), np.isnan(gradient.get()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", ["uint8", "same"])
def test_rows_are_gathered_and_converted(cupy, stored, dtype):
    from fastnet.backends.cupy_backend.library import CupyLibrary

    x = np.random.default_rng(0).integers(0, 256, (7, 5)).astype("uint8" if stored == "uint8" else dtype)
    rows = np.array([6, 0, 0, 3])
    batch = CupyLibrary(0).take_rows(cupy.asarray(x), cupy.asarray(rows), dtype)
    np.testing.assert_array_equal(batch.get(), x[rows].astype(dtype), strict=True)


def sparse_problem(shape, dtype, index_type):
    """A matrix with an empty row and an empty column, in no particular order, some elements given in two parts."""
    random = np.random.default_rng(0)
    n_values = shape[0] * shape[1] // 2
    rows, columns = random.integers(1, shape[0], n_values), random.integers(1, shape[1], n_values)
    order = np.argsort(rows, kind="stable")
    values = random.integers(-8, 9, n_values).astype(dtype)  # whose sums are exact in any order
    indptr = np.searchsorted(rows[order], np.arange(shape[0] + 1))
    matrix = csr_array((values[order], columns[order], indptr), shape=shape)
    matrix.indices, matrix.indptr = matrix.indices.astype(index_type), matrix.indptr.astype(index_type)
    assert not matrix.has_canonical_format
    return matrix


@pytest.mark.parametrize("index_type", ["int32", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 9), (200, 3), (3, 200)])
def test_sparse_products_and_rows(cupy, shape, dtype, index_type):
    from fastnet.backends.cupy_backend.sparse import SparseMatrix

    matrix = sparse_problem(shape, dtype, index_type)
    dense, before = matrix.toarray(), matrix.indices.copy()
    random = np.random.default_rng(1)
    right, left = random.normal(size=(shape[1], 4)).astype(dtype), random.normal(size=(shape[0], 4)).astype(dtype)
    on_device = SparseMatrix.from_host(matrix)
    tolerance = {"rtol": 0, "atol": 1e-4 if dtype == "float32" else 1e-13}
    np.testing.assert_allclose((on_device @ cupy.asarray(right)).get(), dense @ right, **tolerance)
    np.testing.assert_allclose((on_device.T @ cupy.asarray(left)).get(), dense.T @ left, **tolerance)
    assert on_device.T.shape == shape[::-1]
    rows = np.array([shape[0] - 1, 0, 2, 2])
    np.testing.assert_array_equal(on_device.take_rows(cupy.asarray(rows)).get(), dense[rows], strict=True)
    np.testing.assert_array_equal(matrix.indices, before)  # what the user passed is left as it was


def test_sparse_matrix_without_any_element(cupy):
    from fastnet.backends.cupy_backend.sparse import SparseMatrix

    on_device = SparseMatrix.from_host(csr_array((3, 2), dtype="float64"))
    for matrix, n in ((on_device, 2), (on_device.T, 3)):
        np.testing.assert_array_equal((matrix @ cupy.asarray(np.ones((n, 2)))).get(), np.zeros((matrix.shape[0], 2)))
    np.testing.assert_array_equal(on_device.take_rows(cupy.asarray(np.array([1]))).get(), [[0.0, 0.0]])


def test_transposing_a_sparse_matrix_copies_nothing_to_the_host(cupy, machine):
    """It happens within a run."""
    from fastnet.backends.cupy_backend.sparse import SparseMatrix

    on_device = SparseMatrix.from_host(sparse_problem((6, 9), "float32", "int32"))
    machine.transfers.clear()
    assert on_device.T is on_device.T
    assert machine.transfers == []
