"""Work in a process of its own: one that breaks its device, dies or hangs does not stop the others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

_SECONDS_TO_END = 10  # given to a process that is done, or that was killed while it waited for its device


class BrokenOffError(Exception):
    """The process came to no regular end; the message says what became of it."""


def run_apart(function: Callable[..., Iterator[Any]], *arguments: Any, seconds: float) -> Iterator[Any]:
    """Yield what a generator function yields in a new process, as it comes.

    Parameters
    ----------
    function : callable
        Found in its module by the new process. Arguments, and what it yields, are pickled.
    seconds : float
        How long each thing may take that it yields; then the process is killed.

    Raises
    ------
    BrokenOffError
        An error was raised, the process died, or it took too long.
    """
    context = multiprocessing.get_context("spawn")  # a copy of this process could not use CUDA once this one does
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        while True:
            if not receiver.poll(seconds):
                raise BrokenOffError(f"it was broken off when nothing had come of it for {seconds:g} seconds")
            try:
                kind, value = receiver.recv()
            except EOFError:
                process.join(_SECONDS_TO_END)
                raise BrokenOffError(f"its process died with exit code {process.exitcode}") from None
            if kind == "error":
                raise BrokenOffError(value)
            if kind == "end":
                process.join(_SECONDS_TO_END)
                return
            yield value
    finally:
        receiver.close()
        process.kill()
        process.join(_SECONDS_TO_END)


def _send_all(sender: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    try:
        for value in function(*arguments):
            sender.send(("value", value))
    except Exception as error:
        sender.send(("error", describe(error)))
    else:
        sender.send(("end", None))


def describe(error: Exception) -> str:
    """One line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
