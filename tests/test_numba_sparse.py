"""Samples that are mostly zero: how they are packed, and products with them, against NumPy."""

# Legend: N samples, D features, B rows of a tile, P panels, w numbers of a vector.

from __future__ import annotations

import numpy as np
import pytest
from native_calls import run
from scipy.sparse import csr_array

from fastnet.backends.numba_backend.buffers import code_samples, read_only
from fastnet.backends.numba_backend.kernels.sparse import sparse_kernels
from fastnet.backends.numba_backend.layout import TERMS, lanes_of_dtype
from fastnet.backends.numba_backend.packing import bound_tiles, pack_rows, pack_tiles, transpose_tiles
from fastnet.data import Dataset
from fastnet.spec import NetworkSpec
from fastnet.testing import assert_close

DTYPES = ["float32", "float64"]

NO_ORDER = read_only((), np.int64)


def draw(n_samples, n_features, kind):
    """Dense samples, a fifth of whose numbers are not zero; none in some samples, and in some columns."""
    random = np.random.default_rng(0)
    if kind == "uint8":
        x = random.integers(1, 256, (n_samples, n_features)).astype(np.uint8)
    else:
        x = random.normal(size=(n_samples, n_features)).astype(kind)
    x[random.random(x.shape) > 0.2] = 0
    x[::7] = 0
    x[:, ::5] = 0
    return x


def unpacked_rows(packed, n_features):
    values, columns, starts, scale = packed
    dense = np.zeros((len(starts) - 1, n_features))
    for i in range(len(dense)):
        part = slice(starts[i], starts[i + 1])
        assert (part.stop - part.start) % TERMS == 0
        np.add.at(dense[i], columns[part], values[part])
    return dense * scale


def unpacked_tile(values, rows, starts, n_rows):
    dense = np.zeros((n_rows, len(starts) - 1))
    for j in range(dense.shape[1]):
        part = slice(starts[j], starts[j + 1])
        assert (part.stop - part.start) % TERMS == 0
        np.add.at(dense[:, j], rows[part], values[part])
    return dense


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_packed_rows_hold_what_the_dense_ones_did(kind):
    x = draw(60, 33, kind)
    packed = pack_rows(x, x.dtype)
    assert packed.values.dtype == x.dtype
    assert packed.columns.dtype == np.uint16
    assert packed.values.size < x.size / 2
    np.testing.assert_array_equal(unpacked_rows(packed, 33), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_rows_of_a_sparse_matrix(dtype):
    """Columns in any order, twice the same column, zeros that are stored: all of them reach the backend."""
    data, indices = (np.arange(1, 8) + 1 / 64).astype(dtype), np.array([3, 0, 2, 2, 2, 1, 0])
    data[5] = 0
    x = csr_array((data, indices, [0, 2, 2, 7]), shape=(3, 5))
    packed = pack_rows(x, np.dtype(dtype))
    assert packed.values.dtype == dtype
    np.testing.assert_array_equal(unpacked_rows(packed, 5), x.toarray())
    (tile,) = pack_tiles(packed, 5, bound_tiles(3, 1, 64)).starts
    assert tile[-1] == 3 * TERMS  # the columns that hold anything


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("divisor", [1, 16, 255, 256])
def test_numbers_that_are_bytes_over_one_number_are_packed_as_bytes(divisor, dtype, form):
    x = draw(60, 33, "uint8").astype(dtype) / np.dtype(dtype).type(divisor)
    packed = pack_rows(form(x), np.dtype(dtype))
    assert packed.values.dtype == np.uint8
    np.testing.assert_allclose(unpacked_rows(packed, 33), x, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("odd_one", [-1 / 255, 256 / 255, 1.5 / 255, np.nextafter(np.float32(7 / 255), 1), 3e38])
def test_one_number_that_is_no_byte_keeps_all_as_they_are(odd_one):
    """Wherever it is: the first are looked at first."""
    x = draw(3000, 40, "uint8").astype(np.float32) / 255
    x[2999, 38] = odd_one
    packed = pack_rows(x, x.dtype)
    assert packed.values.dtype == np.float32
    np.testing.assert_array_equal(unpacked_rows(packed, 40), x)


@pytest.mark.parametrize(("n_features", "column_dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_columns_beyond_two_bytes(form, n_features, column_dtype):
    x = np.zeros((2, n_features), np.float32)
    x[1, [0, -1]] = 3, 5
    packed = pack_rows(form(x), x.dtype)
    assert packed.columns.dtype == column_dtype
    np.testing.assert_array_equal(unpacked_rows(packed, n_features), x)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_rows_that_are_all_zero(form):
    packed = pack_rows(form(np.zeros((3, 4), np.float32)), np.dtype(np.float32))
    assert packed.values.size == packed.columns.size == 0
    np.testing.assert_array_equal(packed.row_starts, [0, 0, 0, 0])
    tiles = pack_tiles(packed, 4, bound_tiles(3, 1, 64))
    assert tiles.values.size == 0
    assert not tiles.starts.any()


@pytest.mark.parametrize("n_zero_first", [0, 400])
def test_dense_samples_are_not_packed(n_zero_first):
    """Nor those whose first rows alone are empty."""
    x = np.ones((1000, 6), np.float32)
    x[:n_zero_first] = 0
    assert pack_rows(x, x.dtype) is None


def test_no_samples_are_not_packed():
    assert pack_rows(np.empty((0, 6), np.float32), np.dtype(np.float32)) is None


@pytest.mark.parametrize(("n_groups", "tile_rows"), [(1, 512), (1, 256), (3, 64), (7, 128)])
def test_few_tiles_are_equal_and_divide_evenly_among_groups(n_groups, tile_rows):
    bounds = bound_tiles(500, n_groups, tile_rows)
    heights = np.diff(bounds)
    assert bounds[[0, -1]].tolist() == [0, 500]
    assert heights.max() - heights.min() <= 1
    assert heights.max() <= tile_rows
    assert len(heights) % n_groups == 0


@pytest.mark.parametrize("n_rows", [128 * 64, 128 * 64 + 1, 129 * 64])
def test_many_tiles_are_full_but_for_the_last(n_rows):
    heights = np.diff(bound_tiles(n_rows, 5, 64))
    assert heights.sum() == n_rows
    assert (heights[:-1] == 64).all()


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize(("n_groups", "tile_rows"), [(1, 256), (3, 64)])
def test_packed_tiles_hold_the_samples(kind, n_groups, tile_rows):
    x, bounds = draw(500, 13, kind), bound_tiles(500, n_groups, tile_rows)
    tiles = pack_tiles(pack_rows(x, x.dtype), 13, bounds)
    parts = np.split(x, bounds[1:-1])
    for part, starts in zip(parts, tiles.starts, strict=True):
        np.testing.assert_array_equal(unpacked_tile(tiles.values, tiles.rows, starts, len(part)), part)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_transposed_tiles_hold_the_samples_and_zeros(labelled, weighted):
    random, bounds = np.random.default_rng(0), bound_tiles(500, 3, 128)
    x = random.integers(1, 256, (500, 3)).astype(np.uint8)
    targets = random.integers(1, 9, 500).astype(np.int32) if labelled else random.random((500, 2), np.float32)
    weights = random.random(500, np.float32) if weighted else None
    tiles = transpose_tiles(Dataset(x, targets, weights), bounds, 128, 64, np.dtype(np.float32))
    assert tiles.samples.dtype == tiles.weights.dtype == np.float32
    assert tiles.targets.dtype == targets.dtype
    expected = x, targets.reshape(500, -1), np.ones((500, 1)) if weights is None else weights[:, None]
    for slots, rows in zip(tiles, expected, strict=True):
        for part, slot in zip(np.split(rows, bounds[1:-1]), slots, strict=True):
            size = -(-len(part) // 64) * 64
            columns = slot[: rows.shape[1] * size].reshape(-1, size)
            np.testing.assert_array_equal(columns[:, : len(part)], part.T)
            assert not columns[:, len(part) :].any()


def records_of(x, dtype):
    """The samples as kernels take them, and the kernels."""
    packed = pack_rows(x, np.dtype(dtype))
    network = NetworkSpec((x.shape[1], 2), (), dtype=dtype)
    return code_samples(network, x, packed), sparse_kernels(packed.values.dtype, packed.columns.dtype)


def samples_of(form, dtype):
    """Samples (N, 37) as they reach the backend, and as a dense array of float64."""
    if form == "duplicates":
        x = csr_array((np.linspace(-1, 2, 9, dtype=dtype), np.full(9, 3), [0, 0, 9]), shape=(2, 37))
    else:
        x = draw(300, 37, "uint8" if form == "bytes" else dtype)
    dense = (x.toarray() if form == "duplicates" else x).astype(np.float64)
    return (csr_array(x) if form == "csr" else x), dense


every_form = pytest.mark.parametrize("form", ["bytes", "numbers", "csr", "duplicates"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_panels", [1, 2, 5])
@every_form
def test_product_with_sparse_samples(form, n_panels, dtype):
    x, dense = samples_of(form, dtype)
    samples, kernels = records_of(x, dtype)
    random, lanes = np.random.default_rng(0), lanes_of_dtype(np.dtype(dtype))
    weight, bias = random.normal(size=(n_panels, 37, lanes)).astype(dtype), random.normal(size=(n_panels, lanes))
    flat = read_only(np.r_[np.nan, weight.ravel(), bias.ravel()], dtype)
    n_samples = len(dense)
    anywhere = random.permutation(n_samples)
    for order, begin, end, fetches in (
        (NO_ORDER, n_samples // 3, n_samples, True),
        (anywhere, 1, n_samples, True),
        (anywhere, 0, n_samples // 2, False),
    ):
        n_rows = end - begin
        z = np.full(n_panels * n_rows * lanes + 2, np.nan, dtype)
        run(
            kernels.product, samples.packed_values, samples.packed_columns, samples.row_starts,
            read_only(order, np.int64), begin, n_rows, 37, flat, 1, 1 + weight.size, 0.5, n_panels, z, 1, fetches,
        )  # fmt: skip
        rows = dense[order[begin:end] if order.size else slice(begin, end)]
        expected = 0.5 * np.einsum("id,pdw->piw", rows, weight.astype(np.float64)) + bias[:, None, :].astype(dtype)
        assert_close(z[1:-1].reshape(expected.shape), expected, dtype=dtype, longest_reduction=37)
        assert np.isnan(z[[0, -1]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_panels", [1, 2, 5])
@every_form
def test_sorted_tiles_and_their_gradient(form, n_panels, dtype):
    """A tile of samples in any order is sorted by columns; ``x.T @ d_z`` follows, put there first, and then added."""
    x, dense = samples_of(form, dtype)
    samples, kernels = records_of(x, dtype)
    random, lanes = np.random.default_rng(0), lanes_of_dtype(np.dtype(dtype))
    n_rows, order = min(200, len(dense)), random.permutation(len(dense))
    begin = len(dense) - n_rows
    room = samples.packed_values.size + 37 * TERMS * 8
    values, rows, starts = np.full(room, 255, np.uint8), np.full(room, 255, np.uint8), np.full(38, -1)
    run(
        kernels.sort_by_columns, samples.packed_values, samples.packed_columns, samples.row_starts,
        read_only(order, np.int64), begin, n_rows, starts, values, rows,
    )  # fmt: skip
    tile = dense[order[begin:]]
    kept = values.view(np.uint8 if form == "bytes" else dtype)
    np.testing.assert_array_equal(unpacked_tile(kept, rows, starts, n_rows), tile)

    d_z = random.normal(size=(n_panels, n_rows, lanes)).astype(dtype)
    expected = np.einsum("id,piw->pdw", tile, d_z.astype(np.float64))
    gradient = np.full(expected.size + 2, np.nan, dtype)
    for times, adds in ((1, False), (2, True)):
        run(
            kernels.product_backward, read_only(values, np.uint8), read_only(rows, np.uint8),
            read_only(starts, np.int64), 37, read_only(np.r_[np.nan, d_z.ravel()], dtype), 1, n_rows, n_panels,
            gradient, 1, adds,
        )  # fmt: skip
        actual = gradient[1:-1].reshape(expected.shape)
        assert_close(actual, times * expected, dtype=dtype, longest_reduction=n_rows)
        assert np.isnan(gradient[[0, -1]]).all()
