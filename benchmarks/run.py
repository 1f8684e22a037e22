"""Run the benchmarks: print a table each, and write results.json and the results' part of README.md.

    python benchmarks/run.py [name ...] [--rounds N]

Named benchmarks replace their own results and leave the others', if those are of the same machine and
versions.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from measure import Report, machine, versions

NAMES = (
    *("listing", "compile", "keras_fit", "keras_sizes", "logistic", "process", "flights"),
    *("streaming", "sweep", "auto", "rates", "watching", "together", "spark"),
    *("text", "mails", "vocabulary", "estimators"),
)
FOLDER = Path(__file__).parent
RESULTS, README = FOLDER / "results.json", FOLDER / "README.md"
BEGIN, END = "<!-- results, written by run.py -->\n", "<!-- end of results -->\n"


def figure(value: Any) -> str:
    """Return a cell as a person reads it: four digits, thousands apart."""
    if value is None or value != value:  # noqa: PLR0124 - not a number
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")


def as_json(report: Report, rounds: int) -> dict[str, Any]:
    """Return a report as it is kept; a figure that there is not is null."""
    rows = [[None if figure(cell) == "" else cell for cell in row] for row in report.rows]
    return {
        "title": report.title,
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
        "columns": report.columns,
        "rows": rows,
        "goals": [{**goal._asdict(), "met": goal.met} for goal in report.goals],
        "missing": report.missing,
    }


def sentences(result: dict[str, Any]) -> list[str]:
    """Return what there is to say below a table: the goals, and who is missing."""
    goals = [
        f"{goal['what']}: {figure(goal['seen'])}; the goal is at {'most' if goal['at_most'] else 'least'} "
        f"{goal['wanted']:g}: {'met' if goal['met'] else 'missed'}."
        for goal in result["goals"]
    ]
    return [*goals, *(f"Missing: {name}." for name in result["missing"])]


def show(result: dict[str, Any]) -> None:
    """Print a result."""
    table = Table(title=result["title"], title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(result["columns"]):
        table.add_column(column, justify="right" if index else "left", no_wrap=not index)
    for row in result["rows"]:
        table.add_row(*map(figure, row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for sentence in sentences(result):
        console.print(sentence, markup=False, soft_wrap=True)
    console.print()


def as_markdown(results: dict[str, Any]) -> str:
    """Return the results' part of the README."""
    machine_ = results["machine"]
    used = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"Machine: {machine_['processor']}, {machine_['cores']} cores, {machine_['memory_GiB']} GiB, "
        f"{machine_['system']}.",
        f"Versions: {used}.",
    ]
    for name, result in results["benchmarks"].items():
        columns = result["columns"]
        lines += ["", f"### {result['title']} (`{name}`, {result['date']}, {result['rounds']} rounds)", ""]
        lines += [f"| {' | '.join(columns)} |", f"|{'|'.join(['---', *['---:'] * (len(columns) - 1)])}|"]
        lines += [f"| {' | '.join(map(figure, row))} |" for row in result["rows"]]
        said = sentences(result)
        lines += ["", *(f"- {sentence}" for sentence in said)] if said else []
    return "\n".join(lines) + "\n"


def keep(results: dict[str, Any]) -> None:
    """Write the results as JSON, and their tables into the README between its two marks."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}{as_markdown(results)}{END}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (default: 5)")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    results: dict[str, Any] = {"machine": machine(), "versions": versions()}
    old = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    known = old["benchmarks"] if results == {name: old.get(name) for name in results} else {}
    for name in NAMES:
        if not given.names or name in given.names:
            known[name] = as_json(importlib.import_module(name).run(given.rounds), given.rounds)
            show(known[name])
            keep(results | {"benchmarks": {each: known[each] for each in NAMES if each in known}})


if __name__ == "__main__":
    main()
