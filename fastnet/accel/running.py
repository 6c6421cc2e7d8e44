"""Running a script or a module as ``python script.py`` or ``python -m module`` would."""

from __future__ import annotations

import builtins
import io
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import NoReturn

__all__ = ["run_module", "run_script"]

# Modules whose frames lie between Python's start and what is run.
_BETWEEN = {"runpy", "fastnet.accel.__main__", __name__}


def run_script(script: str, arguments: list[str]) -> None:
    """Run a file as ``__main__``; its exceptions are let out.

    Exits with Python's status for it, which is 2, if the file cannot be read.
    """
    path = Path(script).absolute()
    try:
        with io.open_code(str(path)) as file:
            source = file.read()
    except OSError as error:
        _refuse(f"can't open {script!r}: {error.strerror}", status=2)
    sys.argv[:] = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(path.resolve().parent)
    sys.excepthook = _show
    # Not runpy.run_path: it makes the script's name the same in sys.argv and __file__, which Python does not, and takes
    # __main__ away while the script's threads and exit handlers still run.
    main = ModuleType("__main__")
    main.__loader__ = SourceFileLoader("__main__", str(path))
    vars(main).update(__file__=str(path), __builtins__=builtins)
    sys.modules["__main__"] = main
    exec(compile(source, str(path), "exec", dont_inherit=True), vars(main))


def run_module(module: str, arguments: list[str]) -> None:
    """Run a module as ``__main__``; its exceptions are let out.

    Exits with Python's status for it, which is 1, if there is no such module.
    """
    sys.argv[:] = [module, *arguments]
    sys.excepthook = _show
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ImportError as error:
        if _what_ran(error.__traceback__) is None:
            _refuse(str(error), status=1)
        raise


def _refuse(message: str, status: int) -> NoReturn:
    print(f"python -m fastnet.accel: {message}", file=sys.stderr)
    sys.exit(status)


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show an uncaught exception as plain Python would."""
    own = _what_ran(traceback)
    sys.__excepthook__(kind, error.with_traceback(own), own)


def _what_ran(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that belongs to what was run; None if it was not reached."""
    while traceback is not None and _module(traceback.tb_frame) in _BETWEEN:
        traceback = traceback.tb_next
    return traceback


def _module(frame: FrameType) -> str | None:
    spec = frame.f_globals.get("__spec__")
    return None if spec is None else spec.name
