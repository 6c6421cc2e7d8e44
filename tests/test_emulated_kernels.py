"""Threads of emulated kernels: barriers and warps do what CUDA's do, in every order, and what CUDA forbids shows."""

from __future__ import annotations

import emulated_cupy
import numpy as np
import pytest
from emulated_cupy.machine import SCHEDULES
from emulated_cupy.shorthand import device, go, in_every_schedule, load, run

BLOCK_SUMS = """
extern "C" __global__ void __launch_bounds__(THREADS, 1) block_sums(const float* __restrict__ x, int n, float* sums) {
    float* shared = (float*)shared_memory();
    const int k = blockIdx.x * THREADS + threadIdx.x;
    shared[threadIdx.x] = k < n ? x[k] : 0.0f;
    __syncthreads();
    for (int stride = THREADS / 2; stride > 0; stride /= 2) {
        if (threadIdx.x < stride) shared[threadIdx.x] += shared[threadIdx.x + stride];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}
"""
THREADS = 64
OPTIONS = (f"-DTHREADS={THREADS}", "-std=c++17")


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


# --- Threads, blocks and barriers -----------------------------------------------------------------------------------


def block_sums(module, x):
    sums = device(np.zeros(-(-len(x) // THREADS), np.float32))
    kernel = module.get_function("block_sums")
    kernel(sums.shape, (THREADS,), (device(x), np.int32(len(x)), sums), shared_mem=4 * THREADS)
    return sums.get()


@pytest.fixture
def reduction():
    return load(BLOCK_SUMS, OPTIONS)


X = np.arange(1, 201, dtype=np.float32)


def test_reduction_in_every_schedule(reduction):
    expected = [X[k : k + THREADS].sum() for k in range(0, len(X), THREADS)]
    for sums in in_every_schedule(lambda: block_sums(reduction, X)):
        np.testing.assert_array_equal(sums, expected)


def test_without_a_barrier_sums_are_wrong_in_some_schedule(machine, reduction):
    expected = block_sums(reduction, X)
    lines = emulated_cupy.barrier_lines(reduction)
    assert lines == [(6, "__syncthreads();"), (9, "__syncthreads();")]
    for machine.deleted_line, _ in lines:
        results = in_every_schedule(lambda: block_sums(reduction, X))
        assert any(not np.array_equal(sums, expected) for sums in results)
    machine.deleted_line = None
    np.testing.assert_array_equal(block_sums(reduction, X), expected)


def test_superfluous_barriers(machine, reduction):
    assert not emulated_cupy.superfluous_barriers(reduction, lambda: [block_sums(reduction, X)])
    assert machine.deleted_line is None
    twice = load(BLOCK_SUMS.replace("if (threadIdx.x == 0)", "__syncthreads();\n    if (threadIdx.x == 0)"), OPTIONS)
    lines = emulated_cupy.superfluous_barriers(twice, lambda: [block_sums(twice, X)])
    assert lines == [(11, "__syncthreads();")]


def test_barrier_whose_lack_makes_a_launch_fail_is_not_superfluous():
    body = """
    int* shared = (int*)shared_memory();
    if (threadIdx.x == 63) *shared = 0;
    __syncthreads();
    x[*shared] = 1;
    """
    module, x = load(go(body)), device([0], np.float32)

    def compute():
        module.get_function("go")((1,), (64,), (x,), shared_mem=4)
        return [x.get()]

    assert emulated_cupy.superfluous_barriers(module, compute) == []
    assert emulated_cupy.barrier_lines(module)


def test_order_of_threads_that_matters_anyway_is_told():
    module, x = load(go("x[0] = threadIdx.x;")), device([0], np.float32)

    def compute():
        module.get_function("go")((1,), (64,), (x,))
        return [x.get()]

    with pytest.raises(AssertionError, match="order reverse"):
        emulated_cupy.superfluous_barriers(module, compute)


def test_barriers_that_no_launch_has_reached_are_not_listed():
    module = load(go("if (x[0] > 1) __syncthreads();\n__syncthreads();"))
    module.get_function("go")((1,), (32,), (device([0.0], np.float32),))
    assert [number for number, _ in emulated_cupy.barrier_lines(module)] == [2]


ORDER = "order[atomicAdd(n, 1)] = threadIdx.x + blockDim.x * blockIdx.x;"


def test_schedules_are_different_orders_of_threads_and_blocks(machine):
    def order():
        order = device(np.zeros(192, np.int32))
        run(go(ORDER, "int* order, unsigned* n"), order, device([0], np.uint32), grid=(2,), block=(96,))
        return order.get()

    forward, reverse, drawn = in_every_schedule(order)
    np.testing.assert_array_equal(forward, np.arange(192))
    np.testing.assert_array_equal(reverse, np.arange(192)[::-1])
    np.testing.assert_array_equal(np.sort(drawn), np.arange(192))
    assert sum(np.diff(drawn) == 1) < 50
    again = order()
    assert not np.array_equal(again, drawn), "each launch draws anew"


def test_first_threads_run_ahead_as_far_as_barriers_allow():
    """One warp is done before the other begins, although each of its lanes waits for others again and again."""
    body = """
    float v = x[0];
    for (int k = 0; k < 9; ++k) v += __shfl_xor_sync(~0u, v, 1);
    if (threadIdx.x % 32 == 0) x[0] = v;
    x[1 + threadIdx.x / 32] = v;
    """

    def values():
        x = device([1, 0, 0], np.float32)
        run(go(body), x, block=(64,))
        return x.get()[1:]

    forward, reverse, _ = in_every_schedule(values)
    np.testing.assert_array_equal(forward, [512, 512 * 512])
    np.testing.assert_array_equal(reverse, [512 * 512, 512])


def test_indices_of_blocks_and_threads():
    seen = device(np.zeros((2, 3, 4, 5), np.int32))
    body = """
    const int block = blockIdx.x + gridDim.x * blockIdx.y, thread = threadIdx.x + blockDim.x * threadIdx.y;
    seen[block * blockDim.x * blockDim.y + thread] += 1000 * blockIdx.y + 100 * blockIdx.x + 10 * threadIdx.y;
    seen[block * blockDim.x * blockDim.y + thread] += threadIdx.x;
    """
    run(go(body, "int* seen"), seen, grid=(3, 2), block=(5, 4))
    by, bx, ty, tx = np.indices(seen.shape)
    np.testing.assert_array_equal(seen.get(), 1000 * by + 100 * bx + 10 * ty + tx)


TEAMS = """
extern "C" __global__ void go(int* seen) {
    int* shared = (int*)shared_memory();
    const int team = threadIdx.x / 64, member = threadIdx.x % 64;
    for (int step = 0; step <= team; ++step) {  // one team makes more steps than the other
        shared[threadIdx.x] = 100 * step + member;
        synchronize_team(1 + team, 64);
        seen[threadIdx.x] += shared[team * 64 + 63 - member];
        synchronize_team(1 + team, 64);
    }
}
"""


def test_teams_wait_for_themselves_alone():
    module = load(TEAMS)

    def seen():
        seen = device(np.zeros(128, np.int32))
        module.get_function("go")((1,), (128,), (seen,), shared_mem=512)
        return seen.get()

    backward = np.arange(63, -1, -1)
    expected = np.concatenate([backward, 2 * backward + 100])
    for result in in_every_schedule(seen):
        np.testing.assert_array_equal(result, expected)
    assert not emulated_cupy.superfluous_barriers(module, lambda: [seen()])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x < 40)\n __syncthreads();", r"40 threads wait at line 2 \(__syncthreads\), 24 have left"),
        ("if (threadIdx.x < 32)\n synchronize_team(3, 64);", r"32 threads wait at line 2 \(synchronize_team\)"),
        ("if (threadIdx.x < 32) __syncthreads();\n else __syncthreads();", "divergent barriers.*of line . and of line"),
        ("synchronize_team(threadIdx.x / 32, threadIdx.x < 32 ? 32 : 48);", "whole warps, not of 48"),
        ("synchronize_team(1, threadIdx.x < 32 ? 32 + 32 : 96);", "threads are to meet at barrier 1, and .. at line 1"),
        ("synchronize_team(16, 32);", "no barrier 16"),
        ("if (threadIdx.x % 2) x[0] = __shfl_sync(~0u, 1, 0);\n else\n __syncwarp();", "divergent warp.*line"),
        ("if (threadIdx.x) __syncwarp(1);", "lanes 0x00000001 and is none of them"),
        (
            "float d[4]; const unsigned a[4] = {}, b[2] = {}; if (threadIdx.x) multiply_accumulate(d, a, b);",
            "all lanes of a warp",
        ),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_that_would_hang_or_meet_by_accident(machine, body, message, schedule):
    machine.schedule = schedule
    with pytest.raises(RuntimeError, match=f"(?s)kernel go: .*{message}"):
        run(go(body), device([0], np.float32), block=(64,))


def test_lanes_that_have_left_are_not_waited_for():
    x = device(np.zeros(32, np.float32))
    run(go("if (threadIdx.x >= 8) return; x[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f + threadIdx.x, 1);"), x)
    np.testing.assert_array_equal(x.get()[:9], [2, 1, 4, 3, 6, 5, 8, 7, 0])


def test_failed_launch_leaves_nothing_behind(reduction):
    with pytest.raises(RuntimeError, match="deadlock"):
        run(go("if (threadIdx.x < 40) __syncthreads();"), device([0], np.float32), block=(64,))
    np.testing.assert_array_equal(block_sums(reduction, X[:64]), [X[:64].sum()])


# --- Warps ----------------------------------------------------------------------------------------------------------

LANES = np.arange(32)


@pytest.mark.parametrize(
    ("call", "sources"),
    [
        ("__shfl_sync(~0u, v, 5)", np.full(32, 5)),
        ("__shfl_sync(~0u, v, 5, 8)", LANES // 8 * 8 + 5),
        ("__shfl_xor_sync(~0u, v, 3)", LANES ^ 3),
        ("__shfl_down_sync(~0u, v, 4)", np.where(LANES + 4 < 32, LANES + 4, LANES)),
        ("__shfl_down_sync(~0u, v, 4, 16)", np.where(LANES % 16 + 4 < 16, LANES + 4, LANES)),
        ("__shfl_up_sync(~0u, v, 2)", np.where(LANES >= 2, LANES - 2, LANES)),
    ],
)
@pytest.mark.parametrize(("c_type", "dtype"), [("double", np.float64), ("float", np.float32), ("int", np.int32)])
def test_shuffles(machine, call, sources, c_type, dtype):
    values = (LANES**2 + 1).astype(dtype)
    code = go(f"const {c_type} v = x[threadIdx.x]; x[threadIdx.x] = {call};", f"{c_type}* x")

    def shuffled():
        x = device(values)
        run(code, x)
        return x.get()

    for result in in_every_schedule(shuffled):
        np.testing.assert_array_equal(result, values[sources])


def test_votes():
    x = device(np.zeros(4, np.uint32))
    body = """
    const bool mine = threadIdx.x % 3 == 0;
    const unsigned votes[4] = {
        __ballot_sync(~0u, mine),
        (unsigned)__any_sync(~0u, threadIdx.x == 7), (unsigned)__all_sync(~0u, mine), (unsigned)__all_sync(~0u, 1),
    };
    if (threadIdx.x < 4) x[threadIdx.x] = votes[threadIdx.x];
    """
    run(go(body, "unsigned* x"), x)
    np.testing.assert_array_equal(x.get(), [sum(1 << k for k in range(0, 32, 3)), 1, 0, 1])
