"""Emulated streams, graphs and devices: a graph repeats its launches, and refuses what CUDA cannot capture."""

from __future__ import annotations

import gc
import sys

import emulated_cupy
import numpy as np
import pytest
from emulated_cupy.shorthand import device, go, load


@pytest.fixture(autouse=True)
def machine():
    with emulated_cupy.installed() as machine:
        yield machine


# --- Graphs ---------------------------------------------------------------------------------------------------------

ADD = go("x[threadIdx.x] += *step; if (threadIdx.x == 0) *count += 1;", "float* x, const float* step, int* count")


def load_kernel(code):
    kernel = load(code).get_function("go")
    assert kernel.local_size_bytes >= 0  # which loads it
    return kernel


@pytest.fixture
def graph():
    """A graph of two launches, the stream, and the arrays it works on."""
    cupy = sys.modules["cupy"]
    arrays = device(np.zeros(4, np.float32)), device([1], np.float32), device([0], np.int32)
    kernel, stream = load_kernel(ADD), cupy.cuda.Stream()
    with stream:
        stream.begin_capture()
        for _ in range(2):
            kernel((1,), (4,), arrays)
        graph = stream.end_capture()
    return graph, stream, list(arrays)


def test_graph_is_replayed_and_reads_what_the_device_holds_then(graph, machine):
    graph, stream, (x, step, count) = graph
    assert not x.get().any()
    graph.launch(stream)
    step.set(np.array([10], np.float32))
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), [22] * 4)
    np.testing.assert_array_equal(count.get(), [4])
    assert (machine.n_captures, machine.n_graph_launches) == (1, 2)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_graph_whose_array_is_gone(graph, gone):
    graph, stream, arrays = graph
    view = arrays[gone][:]
    arrays[gone] = None
    gc.collect()
    graph.launch(stream)
    del view
    gc.collect()
    name = ("x", "step", "count")[gone]
    with pytest.raises(RuntimeError, match=f"argument '{name}' is gone"):
        graph.launch(stream)


@pytest.mark.parametrize(
    "work",
    [
        lambda cupy, x: x.get(),
        lambda cupy, x: cupy.asarray(np.zeros(2)),
        lambda cupy, x: x.set(np.zeros((2, 2), np.float32)),
        lambda cupy, x: x + x,
        lambda cupy, x: x.fill(0),
        lambda cupy, x: x.sum(),
        lambda cupy, x: cupy.zeros(2),
        lambda cupy, x: cupy.ElementwiseKernel("T a", "T b", "b = a", "same")(x),
        lambda cupy, x: load(ADD).get_function("go"),
        lambda cupy, x: cupy.cuda.get_current_stream().synchronize(),
    ],
)
def test_work_that_is_not_captured(work):
    cupy = sys.modules["cupy"]
    x, stream = device(np.zeros((2, 2), np.float32)), cupy.cuda.Stream()
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            work(cupy, x)
        with pytest.raises(NotImplementedError, match="cuBLAS"):
            x @ x
        stream.end_capture()
    x.get()


def test_streams_that_cannot_capture(machine):
    cupy = sys.modules["cupy"]
    with pytest.raises(RuntimeError, match="default"):
        cupy.cuda.get_current_stream().begin_capture()
    with pytest.raises(RuntimeError, match="not capturing"):
        cupy.cuda.Stream().end_capture()
    kernel, x, stream = load_kernel(go("")), device([0], np.float32), cupy.cuda.Stream()
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="another stream"):
        kernel((1,), (1,), (x,))


def test_kernel_that_may_not_be_loaded_is_not_captured():
    kernel, x, stream = load(go("")).get_function("go"), device([0], np.float32), sys.modules["cupy"].cuda.Stream()
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="loading a kernel while a stream is capturing"):
            kernel((1,), (1,), (x,))
        stream.end_capture()
        kernel((1,), (1,), (x,))
        stream.begin_capture()
        kernel((1,), (1,), (x,))
        stream.end_capture()


def test_other_streams_do_not_wait_for_the_default_stream_of_a_thread(graph, machine):
    graph, stream, _ = graph
    machine.has_default_stream_per_thread = True
    graph.launch()
    with pytest.raises(NotImplementedError, match="thread"):
        graph.launch(stream)


def test_graph_belongs_to_a_device(graph, machine):
    graph, stream, _ = graph
    machine.n_devices = 2
    with sys.modules["cupy"].cuda.Device(1):
        with pytest.raises(RuntimeError, match="device"):
            graph.launch()
        with pytest.raises(RuntimeError, match="device"):
            stream.__enter__()


# --- Arrays and devices ---------------------------------------------------------------------------------------------


def test_copies_into_an_array_are_recorded(machine):
    x = device(np.zeros(3, np.float32))
    machine.transfers.clear()
    x.set(np.array([1, 2, 3], np.float32))
    assert machine.transfers == [("to device", 12)]
    np.testing.assert_array_equal(x.view(np.uint32).get(), np.array([1, 2, 3], np.float32).view(np.uint32))
    with pytest.raises(TypeError, match="float64 array cannot be set"):
        x.set(np.zeros(3))
    with pytest.raises(ValueError, match="Shape mismatch"):
        x.set(np.zeros(4, np.float32))


def test_what_a_device_says_of_itself(machine):
    machine.reset(compute_capability="75", n_multiprocessors=7, shared_memory_per_block_optin=65536)
    found = sys.modules["cupy"].cuda.Device(0)
    assert found.attributes == {"MaxSharedMemoryPerBlockOptin": 65536, "MultiProcessorCount": 7}
    assert found.compute_capability == "75"


def test_non_blocking_streams_record_and_do_nothing_else():
    cupy = sys.modules["cupy"]
    kernel, x = load_kernel(go("")), device([0], np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        kernel((1,), (1,), (x,))
        graph = stream.end_capture()
        with pytest.raises(NotImplementedError, match="non-blocking"):
            kernel((1,), (1,), (x,))
        with pytest.raises(NotImplementedError, match="non-blocking"):
            graph.launch(stream)
    graph.launch(cupy.cuda.Stream())
