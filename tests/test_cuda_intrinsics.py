"""Intrinsics of device.cuh: their twins compute what NumPy does, and CUDA compiles them for every architecture."""

from __future__ import annotations

import re
from pathlib import Path

import emulated_cupy
import numpy as np
import nvrtc
import pytest
from emulated_cupy.shorthand import device, go, in_every_schedule, load, run

import fastnet.backends.cupy_backend

DEVICE_SOURCE = (Path(fastnet.backends.cupy_backend.__file__).parent / "device.cuh").read_text()
LANES = np.arange(32)


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


def test_every_half_as_a_float():
    halves = np.arange(1 << 16, dtype=np.uint16)
    y = device(np.zeros(halves.size, np.float32))
    body = "const int k = threadIdx.x + 256 * blockIdx.x; y[k] = float_from_half(x[k]);"
    run(go(body, "const unsigned short* x, float* y"), device(halves), y, grid=(256,), block=(256,))
    np.testing.assert_array_equal(y.get(), halves.view(np.float16).astype(np.float32))


def test_floats_as_halves():
    every_half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (every_half[:-1] + every_half[1:]) / 2
    near = [np.nextafter(ties, np.float32(side)) for side in (0, np.inf)]
    beyond = np.array([65519, 65520, 1e9, np.inf, 1e-9, 1e-40], np.float32)
    x = np.concatenate([every_half, ties, *near, beyond, -ties])
    y = device(np.zeros(x.size, np.uint16))
    body = "for (int k = threadIdx.x; k < n; k += blockDim.x) y[k] = half_from_float(x[k]);"
    run(go(body, "const float* x, unsigned short* y, int n"), device(x), y, np.int32(x.size), block=(256,))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y.get(), x.astype(np.float16).view(np.uint16))


def test_halves_of_bytes():
    y = device(np.zeros(128, np.uint32))
    run(
        go("const unsigned k = threadIdx.x; y[k] = halves_minus_1024(0x64006400 | 2 * k | (2 * k + 1) << 16);",
           "unsigned* y"),
        y, block=(128,),
    )  # fmt: skip
    np.testing.assert_array_equal(y.get().view(np.float16), np.arange(256))


PRODUCT = """
extern "C" __global__ void go(const uint4* a, const uint2* b, float4* d) {
    const unsigned lane = threadIdx.x;
    const unsigned a_lane[4] = {a[lane].x, a[lane].y, a[lane].z, a[lane].w}, b_lane[2] = {b[lane].x, b[lane].y};
    float d_lane[4] = {d[lane].x, d[lane].y, d[lane].z, d[lane].w};
    multiply_accumulate(d_lane, a_lane, b_lane);
    d[lane] = make_float4(d_lane[0], d_lane[1], d_lane[2], d_lane[3]);
}
"""


def product(a, b, c):
    """c (16, 8) + a (16, 16) @ b (16, 8), by way of the fragments that device.cuh describes."""
    g, t = LANES // 4, LANES % 4
    pair = 2 * t[:, None] + [0, 1]
    rows, columns = g[:, None], pair
    a_lanes = np.stack([a[rows + i, columns + j] for j in (0, 8) for i in (0, 8)], axis=1)
    b_lanes = np.stack([b[pair + i, rows] for i in (0, 8)], axis=1)
    d_lanes = device(np.stack([c[rows + i, columns] for i in (0, 8)], axis=1))
    run(PRODUCT, device(a_lanes), device(b_lanes), d_lanes)
    d = np.zeros((16, 8), np.float32)
    for i, values in zip((0, 8), d_lanes.get().transpose(1, 0, 2), strict=True):
        d[rows + i, columns] = values
    return d


@pytest.fixture
def factors():
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(16, 16)).astype(np.float16),
        rng.normal(size=(16, 8)).astype(np.float16),
        rng.normal(size=(16, 8)).astype(np.float32),
    )


def exact_product(a, b, c):
    return a.astype(np.float64) @ b.astype(np.float64) + c


def test_product_rounded_to_the_nearest(machine, factors):
    machine.truncating_tensor_cores = False
    np.testing.assert_array_equal(product(*factors), exact_product(*factors).astype(np.float32))


def test_product_truncated(factors):
    exact = exact_product(*factors)
    nearest = exact.astype(np.float32)
    truncated = product(*factors)
    expected = np.where(np.abs(nearest) > np.abs(exact), np.nextafter(nearest, np.float32(0)), nearest)
    np.testing.assert_array_equal(truncated, expected)
    assert (truncated != nearest).any()


def test_product_of_what_is_not_finite(factors):
    a, b, c = factors
    a[0, 0], a[1, 0] = np.inf, np.nan
    d = product(a, b, c)
    assert np.isinf(d[0]).all()
    assert np.isnan(d[1]).all()
    assert np.isfinite(d[2:]).all()


COPIES = """
extern "C" __global__ void go(const float* x, float* y, int n, float* early) {
    float* shared = (float*)shared_memory();
    const int k = 4 * threadIdx.x, other = 4 * (blockDim.x - 1 - threadIdx.x), second = 4 * blockDim.x;
    copy_async_16(shared + k, x + (k < n ? k : 0), k < n);
    copy_async_commit();
    copy_async_16(shared + second + k, x, true);
    copy_async_commit();
    early[threadIdx.x] = shared[k];
    copy_async_wait<1>();
    early[threadIdx.x] += shared[second + k];
    __syncthreads();
    for (int i = 0; i < 4; ++i) y[k + i] = shared[other + i];
    copy_async_wait<0>();
    y[k] += shared[second + k + 1];
}
"""


def test_copies_arrive_when_they_are_waited_for():
    x = np.arange(1, 129, dtype=np.float32)
    module = load(COPIES)
    poison = np.frombuffer(b"\x7f" * 4, np.float32)

    def copied():
        y, early = device(np.zeros(128, np.float32)), device(np.zeros(32, np.float32))
        module.get_function("go")((1,), (32,), (device(x), y, np.int32(64), early), shared_mem=1024)
        return y.get(), early.get()

    expected = np.where(x <= 64, x, 0).reshape(32, 4)[::-1].copy()  # zeros where there is nothing to copy
    expected[:, 0] += x[1]
    with np.errstate(over="ignore"):
        sum_of_poison = poison + poison
    for y, early in in_every_schedule(copied):
        np.testing.assert_array_equal(y, expected.reshape(-1))
        np.testing.assert_array_equal(early, np.full(32, sum_of_poison))
    assert not emulated_cupy.superfluous_barriers(module, copied)
    barriers = [text for _, text in emulated_cupy.barrier_lines(module)]
    assert barriers == ["copy_async_wait<1>();", "__syncthreads();", "copy_async_wait<0>();"]


def test_shared_memory_holds_poison_in_every_block():
    y = device(np.zeros(2, np.uint32))
    body = "unsigned* s = (unsigned*)shared_memory(); if (threadIdx.x == 0) { y[blockIdx.x] = s[3]; s[3] = 0; }"
    run(go(body, "unsigned* y"), y, grid=(2,), shared_mem=16)
    np.testing.assert_array_equal(y.get(), [0x7F7F7F7F] * 2)


# --- CUDA's own compiler --------------------------------------------------------------------------------------------

EVERY_INTRINSIC = """
extern "C" __global__ void __launch_bounds__(32) every_intrinsic(const uint4* x, const float* y, float* z, int n) {
    unsigned char* shared = shared_memory();
    copy_async_16(shared + 16 * threadIdx.x, x + (threadIdx.x < n ? threadIdx.x : 0), threadIdx.x < n);
    copy_async_commit();
    copy_async_wait<0>();
    synchronize_team(1, 32);
    const unsigned short half = half_from_float(y[threadIdx.x]);
    const unsigned pair = pack_halves(half, *(const unsigned short*)(shared + 2 * threadIdx.x));
    const unsigned a[4] = {pair, pair, pair, pair}, b[2] = {pair, halves_minus_1024(pair)};
    float d[4] = {0, 0, 0, 0};
    multiply_accumulate(d, a, b);
    z[threadIdx.x] = d[0] + d[1] + d[2] + d[3] + float_from_half(half);
}
"""


def test_every_intrinsic_compiles_for_every_architecture():
    intrinsics = set(re.findall(r"__device__ __forceinline__ [\w ]+[\w*] (\w+)\(", DEVICE_SOURCE))
    assert len(intrinsics) == 10
    assert all(f"{name}(" in EVERY_INTRINSIC or f"{name}<" in EVERY_INTRINSIC for name in intrinsics)
    usages = nvrtc.compile_for_all(DEVICE_SOURCE + EVERY_INTRINSIC)
    assert set(usages) == {75, 80, 86, 89, 90, 100, 120}
    for usage in usages.values():
        assert usage["every_intrinsic"].spill_stores == 0
        assert 8 < usage["every_intrinsic"].registers <= 64


def test_intrinsics_have_emulated_twins():
    y = np.full(32, 2, np.float32)
    z = device(np.zeros(32, np.float32))
    x = device(np.full((32, 8), 3, np.float16))
    kernel = load(DEVICE_SOURCE + EVERY_INTRINSIC).get_function("every_intrinsic")
    kernel((1,), (32,), (x, device(y), z, np.int32(32)), shared_mem=512)
    a, b = [2, 3] * 8, [2, 3] * 4 + [2 - 1024, 3 - 1024] * 4
    np.testing.assert_array_equal(z.get(), np.full(32, 4 * np.dot(a, b) + 2))


def test_compiler_reports_errors_and_spills():
    with pytest.raises(nvrtc.CompileError, match=r'sm_80: .*\(2\): error: identifier "typo"'):
        nvrtc.compile_source('extern "C" __global__ void go() {\n typo(); }', (), 80)
    keep_64 = (
        "float v[64]; for (int k = 0; k < 64; ++k) v[k] = x[k * n]; for (int k = 0; k < 64; ++k) x[k] = v[63 - k];"
    )
    code = go(keep_64, "float* x, int n")
    narrow = nvrtc.compile_source(code, ("-std=c++17", "-maxrregcount=24"), 90)["go"]
    assert narrow.registers <= 24
    assert narrow.spill_stores > 0
    assert narrow.spill_loads > 0
    assert nvrtc.compile_source(code, (), 90)["go"].spill_stores == 0
