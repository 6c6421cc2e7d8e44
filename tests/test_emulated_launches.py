"""Launches of emulated kernels: CuPy and CUDA take what they are given; here what is wrong raises."""

from __future__ import annotations

import sys

import emulated_cupy
import numpy as np
import pytest
from emulated_cupy.shorthand import device, go, load, run


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


PARAMETERS = "const float* x, double* y, int n, long long m, float rate, const unsigned char* bytes, unsigned short* h"


def valid_arguments():
    return {
        "x": device([0], np.float32),
        "y": device([0], np.float64),
        "n": np.int32(0),
        "m": np.int64(0),
        "rate": np.float32(0),
        "bytes": device([0], np.uint8),
        "h": device([0], np.float16),
    }


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("n", lambda: 0),
        ("n", lambda: np.int64(0)),
        ("n", lambda: np.uint32(0)),
        ("n", lambda: device([0], np.int32)),
        ("m", lambda: np.int32(0)),
        ("rate", lambda: 0.0),
        ("rate", lambda: np.float64(0)),
        ("rate", lambda: np.int32(0)),
        ("x", lambda: np.zeros(1, np.float32)),
        ("x", lambda: np.float32(0)),
        ("x", lambda: device([0], np.float64)),
        ("bytes", lambda: device([0], np.int8)),
        ("h", lambda: device([0], np.int16)),
        ("y", lambda: None),
    ],
)
def test_arguments_of_another_type(name, make):
    arguments = valid_arguments()
    run(go("", PARAMETERS), *arguments.values())
    arguments[name] = make()
    with pytest.raises(TypeError, match=f"kernel go: argument '{name}'"):
        run(go("", PARAMETERS), *arguments.values())


def test_wrong_number_of_arguments():
    with pytest.raises(TypeError, match="takes 7 arguments, not 6"):
        run(go("", PARAMETERS), *list(valid_arguments().values())[:6])


def test_arrays_that_a_pointer_does_not_describe(machine):
    machine.reset(n_devices=2)
    with pytest.raises(ValueError, match="'x' is not C-contiguous"):
        run(go(""), device(np.zeros((2, 3), np.float32)).T)
    with pytest.raises(ValueError, match="'x' is not aligned to 16 bytes"):
        run(go("", "uint4* x"), device(np.zeros(8, np.uint32))[2:])
    elsewhere = device([0], np.float32)
    with sys.modules["cupy"].cuda.Device(1), pytest.raises(ValueError, match="different from the current device"):
        run(go(""), elsewhere)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x[8] = 1;", "beyond the end of argument 'x'"),
        ("x[-1] = 1;", "before the beginning of argument 'x'"),
        ("x[0] = y[4];", "beyond the end of argument 'y'"),
        ("x[0] = y[-2000];", "before the beginning of argument 'y'"),
        ("x[1 << 30] = 1;", "far beyond"),
        ("shared_memory()[128] = 1;", "shared memory"),
        ("shared_memory()[-1] = 1;", "shared memory"),
        ("x[0] = shared_memory()[1000];", "shared memory"),
        ("copy_async_16(shared_memory() + 128, x, true);", "line 1: copy_async_16 writes outside"),
        ("float local[4]; for (int k = 0; k <= 4; ++k)\n local[k] = k;\n x[0] = local[1];", "line 2: index 4"),
    ],
)
def test_going_out_of_bounds(body, message):
    x, y = device(np.zeros(8, np.float32)), device(np.zeros(4, np.float32))
    with pytest.raises(IndexError, match=f"kernel go: .*{message}"):
        run(go(body, "float* x, const float* y"), x, y, shared_mem=128)
    assert not x.get().any()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("((float*)y)[1] = 3;", "argument 'y', which is const"),
        ("x[0] = ((float2*)(x + 1))->x;", "line 1: .*alignment"),
        ("copy_async_16(shared_memory() + 8, x, true);", "multiples of 16"),
        ("copy_async_16(shared_memory(), x, true);\n copy_async_commit();", "has not waited for a copy"),
        ("x[0] = 5 / int(y[0]);", "divides an integer by zero"),
    ],
)
def test_what_else_is_wrong_on_a_gpu(body, message):
    x, y = device(np.zeros(8, np.float32)), device(np.zeros(4, np.float32))
    with pytest.raises(RuntimeError, match=f"kernel go: .*{message}"):
        run(go(body, "float* x, const float* y"), x, y, shared_mem=128)


def test_arguments_that_overlap_are_one_memory():
    x = device(np.arange(8), np.float32)
    run(go("x[4] = 10; x[0] = tail[0]; tail[1] = 20; tail[2] = x[5];", "float* x, float* tail"), x, x[4:], block=(1,))
    np.testing.assert_array_equal(x.get(), [10, 1, 2, 3, 10, 20, 20, 7])


def test_limits_of_a_launch(machine):
    machine.reset(shared_memory_per_block_optin=100_000, n_devices=2)
    kernel = load('extern "C" __global__ void __launch_bounds__(2 * 48) go() {}').get_function("go")
    kernel((2, 2), (96,), (), shared_mem=48 << 10)
    with pytest.raises(RuntimeError, match="97 threads"):
        kernel((1,), (97,), ())
    with pytest.raises(RuntimeError, match="1056 threads"):
        load('extern "C" __global__ void go() {}').get_function("go")((1,), (33, 32), ())
    with pytest.raises(RuntimeError, match="grid"):
        kernel((0,), (1,), ())
    with pytest.raises(RuntimeError, match="max_dynamic_shared_size_bytes is 49152"):
        kernel((1,), (1,), (), shared_mem=(48 << 10) + 1)
    with pytest.raises(RuntimeError, match="100001 bytes"):
        kernel.max_dynamic_shared_size_bytes = 100_001
    kernel.max_dynamic_shared_size_bytes = 100_000
    kernel((1,), (1,), (), shared_mem=100_000)
    with sys.modules["cupy"].cuda.Device(1), pytest.raises(RuntimeError, match="shared memory"):
        kernel((1,), (1,), (), shared_mem=100_000)  # each device has its own setting
    with pytest.raises(TypeError, match="tuples"):
        kernel(1, 1, ())


@pytest.mark.parametrize("bounds", ["TWICE(TWICE(TWICE(TWICE(6))))", "WARPS * 32, 1", "(((96)))"])
def test_launch_bounds_are_any_constants(bounds):
    code = f"""
    #define TWICE(x) (((x)) + ((x)))
    constexpr int WARPS = 3;
    extern "C" __global__ void __launch_bounds__({bounds}) go() {{}}
    extern "C" __global__ __launch_bounds__({bounds}) void other(void) {{}}
    """
    for name in ("go", "other"):
        kernel = load(code).get_function(name)
        kernel((1,), (96,), ())
        with pytest.raises(RuntimeError, match="97 threads per block; its bounds say 96"):
            kernel((1,), (97,), ())


def test_source_that_does_not_compile():
    with pytest.raises(Exception, match=r"module.cu:2.*typo"):
        load('extern "C" __global__ void go() {\n typo(); }').get_function("go")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_NOT_FOUND"):
        load('extern "C" __global__ void go() {}').get_function("other")


def test_no_sums_of_floats_in_an_order_that_changes():
    with pytest.raises(Exception, match="atomicAdd"):
        load(go("atomicAdd(x, 1.0f);")).get_function("go")
