"""Using a run: predict, export, evaluate, diagnose and show. Heavy parts load within the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest.commands.completing import RunFolder
from steepest.commands.words import (
    Data,
    Debug,
    Json,
    app,
    option,
    print_json,
    rows_of,
)
from steepest.errors import SteepestError


@app.command()
def predict(
    run: RunFolder,
    data: Data,
    out: Annotated[Path, typer.Option(help="The file to write: CSV or Parquet by its ending.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Predict rows with a run's model; the file has a row for each row of DATA, in the same order."""
    from steepest import terminal
    from steepest.data.rows import RowSource, settled
    from steepest.data.writing import check_ending, write_tables
    from steepest.prediction import open_rows, predictions
    from steepest.run import open_model

    check_ending(out)
    opened = open_model(run)
    source = open_rows(opened.plan, data)
    if out.resolve() in {Path(file).resolve() for file in source.names}:
        raise SteepestError(
            f"{out} holds rows to predict; it is left as it is.", hint="Choose another --out."
        )

    def write(rows: RowSource) -> tuple[int, int]:
        without_past: list[int] = []
        return write_tables(predictions(opened, rows, without_past.append), out), sum(without_past)

    rows, lacking = settled(source, write)
    if lacking:
        terminal.say(
            f"{lacking:,} rows lack a value to which lags look back; they were predicted as rows with "
            "missing values are."
        )
    print(f"{rows:,} predictions -> {out}")
    if json_:
        print_json({"run": str(run), "rows": rows, "out": str(out), "without_past": lacking})


@app.command()
def export(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option(help="The file to write: .onnx, .keras or .safetensors by its ending.")
    ],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run's model as a file of another system."""
    from steepest import terminal
    from steepest.export import to_file

    not_included = to_file(run, out)
    if not_included:
        terminal.say("ONNX has no operators for some columns; the inputs are the encoded features instead.")
        for name, why in not_included.items():
            terminal.say(f"Not included: column {name!r}, because {why}.")
    print(f"{run} -> {out}")
    if json_:
        print_json({"run": str(run), "out": str(out), "not_included": not_included})


@app.command()
def evaluate(run: RunFolder, data: Data, json_: Json = False, debug: Debug = False) -> None:
    """Judge a run's model by labelled rows."""
    from steepest import terminal
    from steepest.prediction import evaluate_run
    from steepest.run import open_model

    figures = evaluate_run(open_model(run), data)
    terminal.print_figures(figures, f"on {figures['rows']:,} rows")
    for left_out in figures["left_out"]:
        terminal.say(f"Left out {left_out['rows']:,} rows: {left_out['reason']}.")
    if json_:
        print_json(figures)


@app.command()
def explain(
    run: RunFolder,
    data: Data,
    rows: Annotated[
        str | None,
        option(
            "Rows to explain, from 0: 0,5,10 or 0-9 (default: the first 10).", parser=rows_of, metavar="ROWS"
        ),
    ] = None,
    label: Annotated[
        str | None,
        option("The class whose output is explained (default: the last of two, else the predicted)."),
    ] = None,
    top: Annotated[int, option("Values to show of each row (default: 10).", min=1)] = 10,
    out: Annotated[Path | None, option("A file for all contributions: .csv, .parquet or .json.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what each value of a row adds to the output of a run's model, before its link."""
    from steepest import terminal
    from steepest.data.writing import WRITERS, write_tables
    from steepest.explaining import explain as look
    from steepest.explaining import table_of
    from steepest.run import write_json

    if out is not None and out.suffix.lower() not in (*WRITERS, ".json"):
        raise SteepestError(
            f"{out} names no format.", hint="Name a file that ends in .csv, .parquet or .json."
        )
    if out is not None and out.resolve() in {Path(file).resolve() for file in data}:
        raise SteepestError(
            f"{out} holds rows to explain; it is left as it is.", hint="Choose another --out."
        )
    found = look(run, data, rows, label)  # type: ignore[arg-type]  # rows_of makes a list of it
    terminal.print_explanations(found, top)
    content = {"run": str(run), "rows": [each.to_json() for each in found]}
    if out is not None and out.suffix.lower() == ".json":
        write_json(out, content)
    elif out is not None:
        write_tables([table_of(found)], out)
    if out is not None:
        terminal.say(f"{len(found):,} rows explained -> {out}")
    if json_:
        print_json(content)


@app.command()
def diagnose(run: RunFolder, json_: Json = False, debug: Debug = False) -> None:
    """Say why a run's descent went as it did, with evidence and one thing to try for each finding."""
    from steepest import terminal
    from steepest.run import open_run

    opened = open_run(run)
    print(f"{run}: {opened.record['descent']['why_it_stopped']}.")
    terminal.print_findings(opened.findings)
    if not opened.findings:
        print("Nothing is wrong with it, as far as was measured.")
    if json_:
        print_json({"run": str(run), "findings": opened.findings})


@app.command()
def show(run: RunFolder, json_: Json = False, debug: Debug = False) -> None:
    """Tell what a run trained, how it went, and where its report is."""
    from steepest import terminal
    from steepest.run import open_run

    opened = open_run(run)
    terminal.print_run(opened)
    if json_:
        print_json(terminal.summary(opened))
