"""The README's picture of speeds: ``python benchmarks/chart.py [REPORT.json] --out speed.png``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from speeds import Speeds, latest_report, read_speeds

from fastnet.plotting.style import BLUE, INK, PALE, new_figure

PICTURE = Path(__file__).parents[1] / ".github" / "pictures" / "speed.png"

# Others than the fastest peer that many scripts are written with today.
ALWAYS_SHOWN = ("NumPy script", "scikit-learn")
GREY = "#8c8c8c"
BAR, GAP = 0.8, 0.7


def draw(speeds: list[Speeds]) -> Any:
    """Bars of times over fastnet's, from 1 to the right where fastnet is faster and to the left where it is slower."""
    groups = [(each, [each.peers[0], *(peer for peer in each.peers[1:] if peer in ALWAYS_SHOWN)]) for each in speeds]
    n_bars = sum(len(shown) for _, shown in groups)
    figure = new_figure(8.5, 0.9 + 0.24 * (n_bars + GAP * len(groups)))
    ax = figure.subplots()
    y, centres = 0.0, []
    for each, shown in groups:
        for index, peer in enumerate(shown):
            draw_bar(ax, y + index, each.ratio(peer), peer, is_fastest=index == 0)
        centres.append(y + (len(shown) - 1) / 2)
        y += len(shown) + GAP
    ax.plot([1, 1], [-0.6, y - GAP], color=INK, linewidth=1.2)
    ax.set(xscale="log", ylim=(y - GAP, -1.4))
    ax.text(1, -0.95, "fastnet (Numba) = 1", ha="center", va="center", fontsize=9, color=INK)
    ax.set_yticks(centres, [each.workload for each, _ in groups], fontsize=10, color=INK)
    ratios = [each.ratio(peer) for each, shown in groups for peer in shown]
    low, high = min(*ratios, 1), max(*ratios, 1)
    room = (high / low) ** 0.28  # for what is written at the ends of bars
    ax.set_xlim(low / room, high * room)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low / room <= tick <= high * room]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], color=INK)
    ax.minorticks_off()
    ax.set_xlabel("time per step over fastnet's: to the right slower than fastnet, to the left faster", color=INK)
    colours = {"the fastest peer": BLUE, "NumPy script and scikit-learn, where they are not": GREY}
    handles = [ax.barh(0, 0, color=colour, label=text) for text, colour in colours.items()]
    ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(PALE)
    ax.tick_params(length=0)
    ax.grid(axis="x", color="#ececec", linewidth=0.8)
    ax.set_axisbelow(True)
    return figure


def draw_bar(ax: Any, y: float, ratio: float, peer: str, *, is_fastest: bool) -> None:
    ax.barh(y, ratio - 1, left=1, height=BAR, color=BLUE if is_fastest else GREY)
    text = f"{peer}  {ratio:.2f}" if ratio < 10 else f"{peer}  {ratio:.1f}"
    slower = ratio >= 1
    ax.annotate(
        text,
        (ratio, y),
        xytext=(4 if slower else -4, 0),
        textcoords="offset points",
        ha="left" if slower else "right",
        va="center",
        fontsize=8.5,
        fontweight="bold" if is_fastest else "normal",
        color=INK,
    )


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=PICTURE, help="The picture to write.")
def main(report: Path | None, out: Path) -> None:
    """Draw REPORT, a JSON file of report.py, by default the newest one."""
    draw(read_speeds(report or latest_report())).savefig(out)
    click.echo(f"drew {out.name}")


if __name__ == "__main__":
    main()
