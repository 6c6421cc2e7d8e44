"""What kernels are told: records of addresses and numbers, and the arrays that they make of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from native_calls import compiled
from numpy.typing import NDArray

from fastnet.backends.numba_backend.kernels.views import matrix_of, numbers_at, own_numbers_at, part_of, row_of
from fastnet.backends.numba_backend.records import as_record, record_dtype, refill


class Example(NamedTuple):
    whole: int
    numbers: NDArray
    flag: bool
    factor: float
    like: np.floating


def test_a_record_holds_addresses_sizes_and_numbers():
    numbers = np.arange(6.0).reshape(2, 3)
    record = as_record(Example(-7, numbers, True, 0.5, np.float32(2)), np.dtype(np.float32))
    assert record.shape == (1,)
    assert record.dtype.names == ("whole", "numbers", "numbers_size", "flag", "factor", "like")
    assert record[0].item() == (-7, numbers.ctypes.data, 6, 1, 0.5, 2.0)
    assert record["like"].dtype == np.float32
    address = record.ctypes.data
    refill(record, Example(2**60, numbers[1:], False, 1e300, np.float32(0)))
    assert record[0].item() == (2**60, numbers[1:].ctypes.data, 3, 0, 1e300, 0.0)
    assert record.ctypes.data == address


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_tell_the_dtype_of_a_network_by_its_records(dtype):
    assert record_dtype(Example, np.dtype(dtype))["like"] == dtype


@compiled
def double_at(like, address, size):
    numbers, results = numbers_at(like, address, size), own_numbers_at(like, address, size)
    for i in range(size):
        results[i] = 2 * numbers[i]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_at_an_address(dtype):
    numbers = np.arange(9, dtype=dtype)
    double_at(dtype(0), numbers[2:].ctypes.data, 5)
    double_at(numbers, numbers.ctypes.data, 1)
    assert numbers.tolist() == [0, 1, 4, 6, 8, 10, 12, 7, 8]


@compiled
def parts(array, start, size, n_columns):
    return (
        part_of(array, start, size).copy(),
        matrix_of(array, start, size // n_columns, n_columns).copy(),
        row_of(array, n_columns, 1).copy(),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("writeable", [False, True])
def test_parts_of_arrays(dtype, writeable):
    array = np.arange(24, dtype=dtype)
    array.flags.writeable = writeable
    part, matrix, row = parts(array, 5, 12, 4)
    np.testing.assert_array_equal(part, array[5:17])
    np.testing.assert_array_equal(matrix, array[5:17].reshape(3, 4))
    np.testing.assert_array_equal(row, array.reshape(4, 6)[1])
