"""``python -m fastnet.accel script.py``."""

from __future__ import annotations

import atexit
import os
import shutil
import site
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from fastnet.accel.installation import install
from fastnet.accel.report import REPORT, read
from fastnet.accel.running import run_module, run_script
from fastnet.accel.summary import print_summary


@click.command(context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]})
@click.option("-m", "is_module", is_flag=True, help="SCRIPT is the name of a module.")
@click.option("-v", "--verbose", is_flag=True, help="Tell what runs where, and in the end for how long.")
@click.option("--strict", is_flag=True, help="Fail where scikit-learn's own code would have to run.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
def prepare(
    is_module: bool, verbose: bool, strict: bool, script: str, arguments: tuple[str, ...]
) -> Callable[[], None]:
    """Run a script with scikit-learn's MLPClassifier and MLPRegressor trained by fastnet.

    What follows SCRIPT is passed on to it.
    """
    if strict:
        os.environ["FASTNET_ACCEL_STRICT"] = "1"
    if verbose:
        _tell_everything()
        if not _is_installed_for_workers():
            click.echo("[fastnet.accel] fastnet is not installed: worker processes are not accelerated", err=True)
    install()
    return partial(run_module if is_module else run_script, script, list(arguments))


def _is_installed_for_workers() -> bool:
    """Whether Python looks at FASTNET_ACCEL when it starts: not where fastnet is used from its sources."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return any(Path(folder, "fastnet_accel.pth").is_file() for folder in folders)


def _tell_everything() -> None:
    folder = Path(tempfile.mkdtemp(prefix="fastnet-accel-"))
    report = folder / "report.jsonl"
    report.touch()
    os.environ[REPORT] = str(report)
    # Registered before the script's own exit handlers, it is called after them, and after a traceback was printed.
    atexit.register(_conclude, report, os.getpid())


def _conclude(report: Path, process: int) -> None:
    if os.getpid() != process:  # a fork of it, which leaves by its own exit
        return
    try:
        print_summary(read(report))
    finally:
        shutil.rmtree(report.parent, ignore_errors=True)


def main() -> None:
    """Prepare by click, and run where click is not in the way of the script's own exceptions and exit status."""
    try:
        run = prepare.main(prog_name="python -m fastnet.accel", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    if callable(run):  # after --help it is a status
        run()


if __name__ == "__main__":
    main()
