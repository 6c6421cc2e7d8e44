"""Scripts of this folder, run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastnet

SCRIPTS = Path(__file__).parent
# The fastnet that is imported here, and the scripts' own folder, which is not searched in safe mode.
SEARCHED = os.pathsep.join(map(str, (Path(fastnet.__file__).parents[1], SCRIPTS)))


def run_script(name: str, *arguments: object, **variables: str) -> str:
    """Run a script to its end, with `variables` added to the environment, and return what it printed."""
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": SEARCHED} | variables
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
