"""Writes the README's tables of speeds: ``python benchmarks/readme_table.py [REPORT.json]``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from drop_in import as_short_table
from speeds import LIBRARIES, SUBJECT, Speeds, latest_report, read_speeds

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- speeds: written by benchmarks/readme_table.py -->\n", "<!-- end of speeds -->\n"
DROP_IN_BEGIN, DROP_IN_END = "<!-- drop-in: begin -->\n", "<!-- drop-in: end -->\n"


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
        lines.append(f"| `{each.workload}`: {each.title} | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines) + "\n"


def three_figures(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def as_drop_in_table(report: Path) -> str:
    """Markdown: both libraries' times on each case; nothing if the report has none."""
    table = json.loads(report.read_text(encoding="utf-8")).get("drop_in")
    return as_short_table(table["comparisons"]) if table else ""


def put_between(text: str, begin: str, end: str, table: str) -> str:
    """`text` with `table` in place of what is between two marks; unchanged if there is no table.

    Raises
    ------
    ClickException
        A mark is missing.
    """
    if not table:
        return text
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise click.ClickException(f"the marks {begin.strip()} and {end.strip()} are missing in the README")
    return f"{before}{begin}\n{table}\n{end}{after}"


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=README)
def main(report: Path | None, readme: Path) -> None:
    """Put the tables of REPORT, a JSON file of report.py, between their marks in the README; by default the newest.

    A table whose figures are not in the report stays as it is.
    """
    text = readme.read_text(encoding="utf-8")
    for each in [report] if report else [latest_report("cpu"), latest_report("drop-in")]:
        speeds = read_speeds(each)
        text = put_between(text, BEGIN, END, as_table(speeds) if speeds else "")
        text = put_between(text, DROP_IN_BEGIN, DROP_IN_END, as_drop_in_table(each))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
