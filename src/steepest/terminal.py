"""What the command line shows: progress while the descent runs, and a run's figures after it."""

from __future__ import annotations

import math
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from steepest.callbacks import Callback
from steepest.data.cache import Entry
from steepest.result import Result
from steepest.run import Run

if TYPE_CHECKING:
    from steepest.explaining import Explanation

SHOWN_EVERY = 0.1
"""Seconds between two looks at the progress."""


def say(message: str) -> None:
    """Tell a person something on the way; on standard error, so that results stay apart."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(message))


def given_names(context: typer.Context) -> list[str]:
    """Return the names of the parameters that were given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


class Progress(Callback):
    """A bar with epoch, rows a second, loss and time left; nothing where nobody looks."""

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.reading: Bar | None = None
        self.doing = ""
        self.rows = 0
        self.epochs = 0
        self.began = self.shown = 0.0
        self.validation = ""

    def on_rows_seen(self, doing: str, rows: int, of: int | None) -> None:
        """Tell how far a pass over the data is, a few times a second."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self.shown < SHOWN_EVERY:
            return
        if self.reading is None or self.doing != doing:
            self.__exit__()
            self.reading = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f} rows"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.reading.add_task(doing, total=of)
            self.reading.start()
        self.doing, self.shown = doing, now
        self.reading.update(self.reading.task_ids[0], completed=rows)

    def on_descent_begin(self, epochs: int, rows: int) -> None:
        """Start the bar."""
        self.__exit__()
        if not sys.stderr.isatty():
            return
        self.rows, self.epochs, self.began = rows, epochs, time.monotonic()
        self.bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.fields[speed]} rows/s  loss {task.fields[loss]}{task.fields[validation]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.bar.add_task("", total=epochs * rows, epoch=f"1/{epochs}", speed="-", loss="-", validation="")
        self.bar.start()

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:
        """Move the bar, a few times a second."""
        now = time.monotonic()
        if self.bar is None or now - self.shown < SHOWN_EVERY:
            return
        self.shown = now
        done = (epoch - 1) * self.rows + rows
        self.bar.update(
            self.bar.task_ids[0],
            completed=done,
            epoch=f"{epoch}/{self.epochs}",
            speed=f"{done / (now - self.began):,.0f}",
            loss=f"{loss:.4g}",
            validation=self.validation,
        )

    def on_epoch_end(self, figures: dict[str, float]) -> None:
        """Remember the validation loss."""
        if "validation_loss" in figures:
            self.validation = f"  validation {figures['validation_loss']:.4g}"

    def on_descent_end(self, result: Result) -> None:  # noqa: ARG002
        """Take the bar away."""
        self.__exit__()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        for bar in (self.bar, self.reading):
            if bar is not None:
                bar.stop()
        self.bar = self.reading = None


def print_cache(folder: Path, entries: list[Entry]) -> dict[str, Any]:
    """Print what the cache holds; return it as one machine-readable object."""
    found = [
        {
            "key": each.path.name,
            "created": each.facts["created"],
            "bytes": each.size,
            "of": each.facts["sources"],
        }
        for each in entries
    ]
    table = Table(box=None, pad_edge=False)
    for title, justify in (("made", "left"), ("MiB", "right"), ("rows", "right"), ("of", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for each in entries:
        data, split = each.facts["facts"]["data"], each.facts["facts"]["split"]
        rows = split["training_rows"] + split["validation_rows"]
        names = ", ".join(data["files"][:3]) + (", ..." if len(data["files"]) > 3 else "")
        table.add_row(each.facts["created"], f"{each.size / 2**20:,.1f}", f"{rows:,}", escape(names))
    console = Console(highlight=False, soft_wrap=True)
    if entries:
        console.print(table)
    total = sum(each["bytes"] for each in found)
    console.print(f"{len(found)} tables, {total / 2**20:,.1f} MiB in {escape(str(folder))}")
    return {"folder": str(folder), "bytes": total, "entries": found}


def number(value: float | None) -> str:
    """Return a figure as a person reads it.

    Examples
    --------
    >>> number(0.70651), number(123456.7), number(None)
    ('0.7065', '123,457', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def print_figures(figures: dict[str, Any], where: str) -> None:
    """Print scores beside the baseline's."""
    from steepest.evaluation import SCORE_NAMES

    table = Table(box=None, pad_edge=False)
    table.add_column(where)
    table.add_column("model", justify="right")
    table.add_column("baseline", justify="right")
    for name, value in figures["scores"].items():
        title, better = SCORE_NAMES[name]
        table.add_row(
            f"{title} ({better} is better)", number(value), number(figures["baseline"]["scores"].get(name))
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"baseline: {escape(figures['baseline']['what'])}", soft_wrap=True)
    for note in figures["notes"]:
        console.print(escape(note), soft_wrap=True)


def print_findings(findings: list[dict[str, str]]) -> None:
    """Print what went well and what did not, each with one thing to try."""
    console = Console(highlight=False, soft_wrap=True)
    for each in findings:
        console.print(
            f"{each['severity']}: {each['finding']} ({escape(each['where'])}): {escape(each['evidence'])} "
            f"Try: {escape(each['try'])}"
        )


def print_explanations(explanations: list[Explanation], top: int) -> None:
    """Print the largest contributions to each row's output."""
    console = Console(highlight=False)
    for each in explanations:
        predicted, *probabilities = each.prediction.items()
        likely = next(
            (value for name, value in probabilities if name == f"probability of {predicted[1]}"), None
        )
        said = "" if likely is None else f", at a probability of {likely:.4f}"
        value = number(predicted[1]) if isinstance(predicted[1], float) else predicted[1]
        console.print(f"row {each.row:,}: predicted {escape(str(value))}{said}", soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        table.add_column(escape(each.of), overflow="fold")
        table.add_column(number(each.output), justify="right")
        table.add_row("baseline", number(each.baseline))
        for part in each.contributions[:top]:
            table.add_row(escape(part.label), _signed(part.contribution))
        rest = each.contributions[top:]
        if rest:
            table.add_row(f"{len(rest):,} others", _signed(sum(part.contribution for part in rest)))
        console.print(table)
        console.print(
            f"{each.how}; they add up to the output within {abs(each.residual):.1e}\n", soft_wrap=True
        )


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"


def _judged(run: Run) -> tuple[dict[str, Any], str]:
    """Return the figures to show: those on held-out rows, where there are any."""
    figures = run.record["figures"]
    if figures["validation"]:
        return figures["validation"], f"on {figures['validation']['rows']:,} rows held out"
    return figures["training"], f"on the {figures['training']['rows']:,} training rows (none were held out)"


def print_workers(workers: list[dict[str, Any]]) -> None:
    """Print what each worker of a fit by several had to do."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("worker", "left"),
        ("on", "left"),
        ("rows", "right"),
        ("rows/s", "right"),
        ("time spent waiting", "right"),
    ):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for each in workers:
        speed, waiting = each["rows_per_second"], each["waiting"]
        table.add_row(
            f"{each['worker']}",
            escape(each["host"]),
            f"{each['rows']:,}",
            "-" if speed is None else f"{speed:,.0f}",
            "-" if waiting is None else f"{waiting:.0%}",
        )
    Console(highlight=False).print(table)


def print_fit(run: Run) -> None:
    """Print what a fit reached."""
    record = run.record
    descent = record["descent"]
    console = Console(highlight=False, soft_wrap=True)
    speed = descent["rows_per_second"]
    console.print(
        f"{descent['steps']:,} steps in {record['seconds']['descent']:.2f} s"
        f"{f' ({speed:,.0f} rows/s)' if speed else ''}; {escape(descent['why_it_stopped'])}."
    )
    if "workers" in record:
        print_workers(record["workers"])
    if not descent["failure"]:
        print_figures(*_judged(run))
    for note in record["notes"]:
        console.print(escape(note))
    print_findings(record["findings"])
    console.print(f"report: {escape(f'{run.name}/report.html')}")


def print_run(run: Run) -> None:
    """Print what a run trained and how it went."""
    record = run.record
    model, descent, data = record["model"], record["descent"], record["data"]
    hidden = f" with hidden layers of {', '.join(map(str, model['hidden']))} units" if model["hidden"] else ""
    hidden = f" of {', '.join(model['layers'])}" if "layers" in model else hidden
    lines = [
        f"run: {run.name} (made {record['created']} by steepest {record['steepest']})",
        f"data: {', '.join(data['files'])}, {data['rows']:,} rows",
        *(f"  left out {each['rows']:,} rows: {each['reason']}" for each in data["left_out"]),
        f"split: {record['split']['training_rows']:,} training rows; {record['split']['how']}",
        f"target: {record['target']['why']}",
        f"model: {model['name']}{hidden}, {model['features']:,} features, {model['parameters']:,} parameters",
        f"descent: {descent['optimizer']} at a learning rate of {descent['learning_rate']:g} "
        f"({descent['schedule']}), batches of {descent['batch_size']}, seed {descent['seed']}",
        f"run again: {record['command']}",
    ]
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(escape(line))
    print_fit(run)


def summary(run: Run) -> dict[str, Any]:
    """Return a run as one machine-readable object, without its curves; see docs/command-line.md."""
    record = run.record
    figures = {
        part: None
        if found is None
        else {name: found[name] for name in ("rows", "scores", "baseline", "notes")}
        for part, found in record["figures"].items()
    }
    names = ("format", "steepest", "created", "command", "data", "split", "target", "model", "descent")
    return {
        "run": run.name,
        "report": f"{run.name}/report.html",
        **{name: record[name] for name in (*names, "notes", "findings", "seconds")},
        "settings": tomllib.loads(record["settings_toml"]),
        "workers": record.get("workers", []),
        "figures": figures,
    }
