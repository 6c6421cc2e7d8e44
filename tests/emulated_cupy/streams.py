"""Streams, and graphs of the launches that were recorded on them.

Work is done when it is asked for, in every stream. That is an order CUDA may choose as well, as these streams are
blocking ones: they wait for the default stream, and it for them. Others only record.
"""

from __future__ import annotations

from typing import Protocol, Self

from emulated_cupy.machine import MACHINE

_ANY_DEVICE = -1


class Launch(Protocol):
    def run(self) -> None: ...


class Stream:
    """See ``cupy.cuda.Stream``.

    Attributes
    ----------
    recorded : list of launches, or None
        While it is capturing.
    """

    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking
        self.device_index = MACHINE.current_device
        self.recorded: list[Launch] | None = None

    def __enter__(self) -> Self:
        self._require_device()
        MACHINE.entered_streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        MACHINE.entered_streams.remove(self)

    def begin_capture(self) -> None:
        self._require_device()
        MACHINE.refuse_while_capturing("another capture")
        MACHINE.capturing_stream, self.recorded = self, []

    def end_capture(self) -> Graph:
        if self.recorded is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        graph = Graph(self.recorded, self.device_index)
        MACHINE.n_captures += 1
        MACHINE.capturing_stream = self.recorded = None
        return graph

    def is_capturing(self) -> bool:
        return self.recorded is not None

    def synchronize(self) -> None:
        MACHINE.refuse_while_capturing("waiting")
        MACHINE.n_waits += 1

    def require_order(self) -> None:
        """Refuse work that nothing else waits for, and that waits for nothing."""
        if self.non_blocking:
            raise NotImplementedError("the emulation does not know what has to wait for what on non-blocking streams")
        if MACHINE.has_default_stream_per_thread and self is not Stream.null:
            raise NotImplementedError("the emulation does not know what waits for a thread's default stream")

    def _require_device(self) -> None:
        if self.device_index != MACHINE.current_device:
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_index}) does not match with the current "
                f"device ({MACHINE.current_device})"
            )


class DefaultStream(Stream):
    """That of whichever device is current."""

    def __init__(self) -> None:
        super().__init__()
        self.device_index = _ANY_DEVICE

    def begin_capture(self) -> None:
        raise RuntimeError("cannot capture on the default (legacy) stream")

    def _require_device(self) -> None: ...


Stream.null = DefaultStream()


def current_stream() -> Stream:
    """The one entered last of the current device's, or its default stream."""
    devices = MACHINE.current_device, _ANY_DEVICE
    entered = (stream for stream in reversed(MACHINE.entered_streams) if stream.device_index in devices)
    return next(entered, Stream.null)


class Graph:
    """See ``cupy.cuda.Graph``."""

    def __init__(self, launches: list[Launch], device_index: int) -> None:
        self._launches, self._device_index = launches, device_index

    def launch(self, stream: Stream | None = None) -> None:
        MACHINE.refuse_while_capturing("a launch of a graph")
        (stream or current_stream()).require_order()
        if not {self._device_index, (stream or current_stream()).device_index} <= {MACHINE.current_device, _ANY_DEVICE}:
            raise RuntimeError("cudaErrorInvalidResourceHandle: the graph, its stream or neither is of this device")
        MACHINE.n_graph_launches += 1
        for launch in self._launches:
            launch.run()
