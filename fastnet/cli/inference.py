"""``fastnet predict`` and ``fastnet evaluate``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from fastnet.cli.options import ExistingOrNot, backend_options, check_output, data_options, to_json
from fastnet.errors import DataError

if TYPE_CHECKING:
    from fastnet.network import Network

__all__ = ["evaluate", "predict"]


@click.command()
@click.argument("network", type=ExistingOrNot)
@data_options
@click.option("--probabilities", is_flag=True, help="Probabilities of all classes, not the likeliest class.")
@click.option("-o", "--output", type=ExistingOrNot, metavar="FILE", help="Write to a file, not to standard output.")
@backend_options
def predict(
    network: Path,
    data: Path | None,
    target: str | None,
    probabilities: bool,
    output: Path | None,
    backend: str | None,
    device: str,
    n_threads: int | None,
) -> None:
    """Predict with a saved NETWORK: one line per sample, values separated by commas."""
    from fastnet.network import Network

    if output is not None and not _is_stream(output):
        check_output(output)
    net = Network.load(network, backend=backend, device=device, n_threads=n_threads)
    samples, _ = _read(net, data, target)
    predictions = net.predict_proba(samples) if probabilities else net.predict(samples)
    _write((",".join(map(_as_text, row)) for row in np.atleast_2d(predictions.T).T), output)


@click.command()
@click.argument("network", type=ExistingOrNot)
@data_options
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@backend_options
def evaluate(
    network: Path,
    data: Path | None,
    target: str | None,
    as_json: bool,
    backend: str | None,
    device: str,
    n_threads: int | None,
) -> None:
    """Loss and accuracy of a saved NETWORK on labelled data."""
    from fastnet.network import Network

    net = Network.load(network, backend=backend, device=device, n_threads=n_threads)
    samples, targets = _read(net, data, target)
    if targets is None:
        raise DataError(
            f"{data}: has {net.spec.n_features} columns, all of them features: name the target with --target"
        )
    if net.classes is not None and net.classes.dtype.kind == "U":
        targets = targets.astype(str)  # numbers that do not count from 0 were trained on as strings
    figures = net.evaluate(samples, targets)
    if as_json:
        click.echo(to_json(figures))
    else:
        click.echo("  ".join(f"{name} {value:.6g}" for name, value in figures.items()))


def _read(net: Network, data: Path | None, target: str | None) -> tuple[NDArray, NDArray | None]:
    """Samples and, where there are some, targets: of a file, or of MNIST's test images in a folder."""
    from fastnet.datasets import load, read_samples

    if data is None and os.environ.get("FASTNET_DATA"):
        data = Path(os.environ["FASTNET_DATA"])
    if data is None:
        raise click.UsageError("name the data with --data PATH")
    if data.is_dir():
        if target is not None:
            raise click.UsageError("--target goes with a file; a folder is taken for MNIST's")
        _, samples, targets = load("mnist", data=data).judged_on
        return samples, targets
    return read_samples(data, net.spec.n_features, target, feature_names=net.feature_names)


def _write(lines: Iterable[str], output: Path | None) -> None:
    """Lines to a file, which is written whole or not at all, or to where lines are read as they come."""
    if output is not None and not _is_stream(output):
        from fastnet.persistence import replacing

        with replacing(output) as file:
            file.writelines(f"{line}\n".encode() for line in lines)
        return
    with click.open_file(output or "-", "w") as stream:
        for line in lines:
            click.echo(line, file=stream)


def _is_stream(output: Path) -> bool:
    """Whether it is standard output, a pipe or a device, all of which are written to and not replaced."""
    return str(output) == "-" or (output.exists() and not output.is_file() and not output.is_dir())


def _as_text(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float | np.floating) else str(value)
