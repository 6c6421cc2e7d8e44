"""``fastnet train``."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnet.cli.options import ExistingOrNot, backend_options, check_output, data_options, quiet_option, to_json
from fastnet.errors import SpecError
from fastnet.spec import DTYPES

if TYPE_CHECKING:
    from fastnet.callbacks import Callback, Checkpoint
    from fastnet.history import History
    from fastnet.network import Network
    from fastnet.recipes import Finding, PreparedRun, Recipe

__all__ = ["train"]


@click.command()
@click.argument("recipe")
@data_options
@backend_options
@click.option("--dtype", type=click.Choice(DTYPES), help="Precision, in place of the recipe's.")
@click.option("--seed", type=click.IntRange(min=0), help="Of initial weights and the order of samples.")
@click.option("--steps", "n_steps", type=click.IntRange(min=1), help="Updates, in place of the recipe's number.")
@click.option("--epochs", "n_epochs", type=click.IntRange(min=1), help="Epochs, in place of the recipe's number.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples per update, in place of the recipe's number.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="In place of the recipe's.")
@click.option("--save", type=ExistingOrNot, metavar="FILE", help="Save the network, as .safetensors.")
@click.option("--plot", type=ExistingOrNot, metavar="PATH", help="Draw pictures into a folder, or curves as .png.")
@click.option("--checkpoint", type=ExistingOrNot, metavar="FILE", help="Write the state of the run now and then.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures for machines.")
@quiet_option
def train(
    recipe: str,
    save: Path | None,
    plot: Path | None,
    checkpoint: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    """Train RECIPE: a name that `fastnet recipes` lists, or a .toml file of your own."""
    from fastnet.callbacks import Checkpoint
    from fastnet.recipes import check_expectations, load_recipe, prepare

    if overrides["n_steps"] and overrides["n_epochs"]:
        raise click.UsageError("--steps or --epochs, not both")
    if resume and checkpoint is None:
        raise click.UsageError("--resume goes with --checkpoint FILE")
    _check_outputs(save, plot, checkpoint)
    if checkpoint is not None and checkpoint.exists() and not resume:
        raise click.UsageError(f"{checkpoint} exists: add --resume to go on from it, or remove it")
    described = load_recipe(recipe)
    run = prepare(described, **overrides)
    keeper = None if checkpoint is None else Checkpoint(checkpoint)
    try:
        history = _fit(run, keeper, resume, quiet or as_json)
    finally:  # also after divergence: the last finite weights
        _save(run.network, save, quiet)
    if history.stop_reason == "interrupted":
        click.echo(f"fastnet: interrupted at step {history.n_steps:,}; {_what_is_left(save, checkpoint)}", err=True)
    figures = run.evaluate()
    findings = check_expectations(run.expectations, history, figures) if history.stop_reason == "completed" else []
    if as_json:
        click.echo(to_json(_as_json(described, run.network, history, keeper, figures, findings)))
    elif quiet:
        _print_figures(figures)
    else:
        _print_report(described, run, history, keeper if resume else None)
        _print_figures(figures)
        for finding in findings:
            click.echo(f"expected  {finding}")
    if plot is not None:
        for path in _draw(plot, run, history):
            if not quiet:
                click.echo(f"drew {path}", err=True)
    if history.stop_reason == "interrupted":
        raise SystemExit(130)


def _check_outputs(save: Path | None, plot: Path | None, checkpoint: Path | None) -> None:
    """Find out before training, not after, that something could not be written."""
    for path in (save, checkpoint):
        if path is not None:
            check_output(path)
    if plot is not None:
        from fastnet.plotting import image_suffixes

        suffixes = image_suffixes()  # raises where matplotlib is missing
        if plot.suffix and not plot.is_dir() and plot.suffix.lower() not in suffixes:
            raise SpecError(f"{plot}: cannot draw that kind of file; name a folder, or use {', '.join(suffixes)}")
        if not plot.suffix and plot.exists() and not plot.is_dir():
            raise SpecError(f"{plot}: is a file, and pictures go into a folder")
        check_output(plot / "curves.png" if plot.is_dir() else plot)  # where a file can be made, a folder can be


def _fit(run: PreparedRun, keeper: Checkpoint | None, resume: bool, quiet: bool) -> History:
    from fastnet.callbacks import ProgressBar

    callbacks: list[Callback] = [] if quiet else [ProgressBar()]
    resume_from = None
    if keeper is not None:
        callbacks.append(keeper)
        if resume and Path(keeper.path).exists():
            resume_from = keeper.path
    with _own_words_on_interrupts():
        return run.fit(callbacks=callbacks, resume_from=resume_from)


@contextmanager
def _own_words_on_interrupts() -> Iterator[None]:
    """Silence what the library says, that the weights are kept: they are in memory, and the process ends."""
    logger = logging.getLogger("fastnet.training")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _what_is_left(save: Path | None, checkpoint: Path | None) -> str:
    """What an interrupted run has left on disk, and how to go on."""
    left = [] if save is None else [f"the network is saved as it was then in {save}"]
    if checkpoint is not None and checkpoint.exists():
        left.append(f"add --resume to go on from {checkpoint}")
    return "; ".join(left) or "nothing was saved: add --save FILE or --checkpoint FILE"


def _save(network: Network, path: Path | None, quiet: bool) -> None:
    if path is None or network.history is None:
        return
    try:
        network.save(path)
    except OSError as error:  # the disk has become full since training began, or is gone
        message = f"{error.strerror}; the network is kept as {_save_elsewhere(network, path.name)}"
        raise OSError(error.errno, message, str(path)) from error
    if not quiet:
        click.echo(f"saved {path}", err=True)


def _save_elsewhere(network: Network, name: str) -> Path:
    """Save what would be lost otherwise in a new folder, where temporary files go."""
    path = Path(tempfile.mkdtemp(prefix="fastnet-")) / name
    network.save(path)
    return path


def _print_report(recipe: Recipe, run: PreparedRun, history: History, resumed: Checkpoint | None) -> None:
    network = run.network
    sizes = "-".join(map(str, network.spec.layer_sizes))
    click.echo(f"{recipe.name}: {sizes}, {network.spec.output} output, {network.spec.loss}, {network.spec.dtype}")
    click.echo(f"data      {run.table.name}, {len(run.table.y):,} training samples")
    reason = history.backend_reason.partition(";")[0]  # what was passed over, and why, is for `fastnet backends`
    click.echo(f"backend   {history.backend_name} on {history.device_name} ({reason})")
    if resumed is not None:
        click.echo(f"resumed   {_describe_resumption(resumed)}")
    click.echo(f"trained   {history.n_steps:,} steps in {history.seconds:.2f} s, {history.stop_reason}")
    if history.steps_per_entry == 1 and len(history.loss) > 1:
        click.echo(f"loss      {history.loss[0]:.9g} at the start, {history.loss[1]:.9g} after the first step")


def _describe_resumption(resumed: Checkpoint) -> str:
    if resumed.resumed_at is None:
        return f"nothing: {resumed.path!s} was not there"
    return f"at step {resumed.resumed_at:,} from {resumed.path!s}"


def _print_figures(figures: dict[str, dict[str, float]]) -> None:
    for part, values in figures.items():
        click.echo(f"{part:<9} " + "  ".join(f"{name} {value:.9g}" for name, value in values.items()))


def _as_json(
    recipe: Recipe,
    network: Network,
    history: History,
    keeper: Checkpoint | None,
    figures: dict[str, dict[str, float]],
    findings: list[Finding],
) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "layer_sizes": list(network.spec.layer_sizes),
        "dtype": network.spec.dtype,
        "backend": history.backend_name,
        "backend_reason": history.backend_reason,
        "backend_detail": history.backend_detail,
        "device": history.device_name,
        "resumed_at": None if keeper is None else keeper.resumed_at,
        "n_steps": history.n_steps,
        "seconds": history.seconds,
        "stop_reason": history.stop_reason,
        "first_loss": history.loss[0] if history.loss else None,
        "last_loss": history.loss[-1] if history.loss else None,
        **{part.replace("-", "_"): values for part, values in figures.items()},
        "expected": [
            {"what": str(finding.expectation), "value": finding.value, "met": finding.met} for finding in findings
        ],
    }


def _draw(path: Path, run: PreparedRun, history: History) -> list[Path]:
    from fastnet import plotting

    if not path.suffix or path.is_dir():
        return plotting.save_pictures(path, run.network, history, run.table)
    plotting.history_figure(history, loss=run.network.spec.loss).savefig(path)
    return [path]
