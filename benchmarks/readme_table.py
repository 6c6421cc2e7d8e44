"""Writes the README's table of speeds: ``python benchmarks/readme_table.py [REPORT.json]``."""

from __future__ import annotations

from pathlib import Path

import click
from speeds import LIBRARIES, SUBJECT, Speeds, latest_report, read_speeds

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- speeds: written by benchmarks/readme_table.py -->\n", "<!-- end of speeds -->\n"


def as_table(speeds: list[Speeds]) -> str:
    """Markdown: milliseconds per step, and in bold the workloads on which fastnet is faster than every peer."""
    lines = [
        f"| workload | {' | '.join(LIBRARIES)} | fastest peer ÷ numba |",
        f"|---|{'---:|' * (len(LIBRARIES) + 1)}",
    ]
    for each in speeds:
        cells = [three_figures(each.times[name]) if name in each.times else "-" for name in LIBRARIES]
        ratio = f"{each.ratio(each.peers[0]):.2f}"
        verdict = f"**{ratio}**" if each.times[SUBJECT] < each.times[each.peers[0]] else ratio
        lines.append(f"| `{each.workload}` | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines) + "\n"


def three_figures(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=README)
def main(report: Path | None, readme: Path) -> None:
    """Put the table of REPORT, a JSON file of report.py, by default the newest one, between its marks in the README."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise click.ClickException(f"{readme.name}: the marks {BEGIN.strip()} and {END.strip()} are missing")
    table = as_table(read_speeds(report or latest_report()))
    readme.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
