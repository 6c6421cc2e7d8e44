"""The command line: ``fastnet train | predict | evaluate | bench | backends | recipes``.

Results go to standard output, progress and messages to standard error. Exit codes: 0 success, 1 training diverged,
2 something that the user can mend, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from fastnet.errors import DivergenceError, FastnetError

__all__ = ["main"]

# Command -> module that defines it, so that --help loads no more than it shows.
_COMMANDS = {
    "train": "fastnet.cli.train",
    "predict": "fastnet.cli.inference",
    "evaluate": "fastnet.cli.inference",
    "bench": "fastnet.cli.bench",
    "backends": "fastnet.cli.listings",
    "recipes": "fastnet.cli.listings",
}


class _Group(click.Group):
    """Loads commands when they are asked for, and turns expected errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("fastnet: interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError:
            raise
        except (FastnetError, OSError, MemoryError) as error:
            click.echo(f"fastnet: {_as_one_line(error)}", err=True)
            sys.exit(1 if isinstance(error, DivergenceError) else 2)


def _as_one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__


class _Announcement(logging.Handler):
    """Shows on standard error why it takes a while before training begins."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"fastnet: {record.getMessage()}", err=True)


def _announce_compiling() -> None:
    logger = logging.getLogger("fastnet.compiling")
    if not logger.handlers:
        logger.addHandler(_Announcement())
        logger.setLevel(logging.INFO)
        logger.propagate = False


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastnet")
def main() -> None:
    """Train multilayer perceptrons as fast as the hardware allows, on CPU or GPU."""
    _announce_compiling()
