"""``python -m fastnet`` is the command ``fastnet``."""

from fastnet.cli import main

main(prog_name="fastnet")
