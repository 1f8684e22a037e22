"""Before a fit: explore, compare and tune. Heavy parts load within the commands."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from steepest.commands.training import fit
from steepest.commands.words import (
    DEFAULT,
    Data,
    Debug,
    Json,
    app,
    batch_size_of,
    lags_of,
    option,
    print_json,
    several,
    tables_of,
)
from steepest.settings import Settings
from steepest.trials.options import Variants, with_fits_options


@app.command()
def explore(
    data: Data,
    target: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path | None, option("The HTML file to write.", metavar="FILE.html")] = None,
    drop: Annotated[
        list[str] | None, option("A column to leave out; may be repeated.", metavar="COLUMN")
    ] = None,
    lags: Annotated[
        list[str] | None,
        option("Look at what stood in COLUMN so many rows before; may be repeated.", metavar="COLUMN:N,N"),
    ] = None,
    max_rejected: Annotated[
        float, option("The greatest share of rows that may be unusable (default: 0.01).", metavar="SHARE")
    ] = DEFAULT.max_rejected,
    seed: Annotated[int, option("Draws the sample (default: 0).", min=0)] = DEFAULT.seed,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Look at a table before training: columns, what they tell of the target, what a descent will meet."""
    from steepest import terminal
    from steepest.exploration.exploring import explore as look
    from steepest.exploration.showing import print_exploration

    with terminal.Progress() as progress:
        found = look(
            data, target, drop=drop or (), lags=lags_of(lags or []), max_rejected=max_rejected, seed=seed,
            say=terminal.say, seen=progress.on_rows_seen,
        )  # fmt: skip
    if out is not None:
        found.write_report(out)
    print_exploration(found.record, out)
    if json_:
        print_json(found.record)


Many = partial(option, parser=several, metavar="A,B")


@app.command(cls=Variants)
@with_fits_options(fit)
def compare(
    context: typer.Context,
    data: Data,
    variants: Annotated[
        list[str] | None,
        option(
            "What each differs in, such as batch_size=all or batch_size=32,optimizer=sgd; one word for each "
            "(default: batch_size=all batch_size=32 batch_size=1).",
            metavar="SETTING=VALUE,... ...",
        ),
    ] = None,
    out: Annotated[Path, option("The folder to write (default: comparison).")] = Path("comparison"),
    overwrite: Annotated[bool, option("Replace a comparison of the same name.", "--overwrite")] = False,
    json_: Json = False,
    debug: Debug = False,
    **options: Any,
) -> None:
    """Descend from the same start in several ways; write tables and figures of what became of each."""
    from steepest import terminal
    from steepest.trials.comparing import compare as run
    from steepest.trials.showing import print_comparison
    from steepest.trials.variants import read_variant

    wanted = _settings(context, options, data)
    with terminal.Progress() as progress:
        found = run(
            wanted, [read_variant(each) for each in variants or ()], out=out, overwrite=overwrite,
            callbacks=[progress], say=terminal.say, seen=progress.on_rows_seen,
        )  # fmt: skip
    print_comparison(found.record, out)
    if json_:
        print_json(found.record)


@app.command()
@with_fits_options(fit, but=("learning_rate",))
def tune(
    context: typer.Context,
    data: Annotated[
        list[str], typer.Argument(metavar="RUN|DATA...", help="A run, whose settings are taken, or a table.")
    ],
    optimizers: Annotated[str, Many("Update rules to try, each with its own rates.")] = "",
    batch_sizes: Annotated[str, Many("Batch sizes to try.")] = "",
    schedules: Annotated[str, Many("Schedules to try.")] = "",
    out: Annotated[Path | None, option("A folder to write tune.json and report.html to.")] = None,
    overwrite: Annotated[bool, option("Replace a folder of the same name.", "--overwrite")] = False,
    json_: Json = False,
    debug: Debug = False,
    **options: Any,
) -> None:
    """Show the loss that each learning rate reaches, the rates that work, and which to take."""
    from steepest import terminal
    from steepest.trials.showing import print_tuning
    from steepest.trials.tuning import tune as search

    wanted = _settings(context, options, data)
    with terminal.Progress() as progress:
        found = search(
            wanted, optimizers=optimizers, batch_sizes=[batch_size_of(each) for each in batch_sizes],
            schedules=schedules, out=out, overwrite=overwrite, say=terminal.say, seen=progress.on_rows_seen,
        ).to_json()  # fmt: skip
    print_tuning(found, out)
    if json_:
        print_json(found)


def _settings(context: typer.Context, options: dict[str, Any], data: list[str]) -> Settings:
    """Return the settings that were given by fit's options; of a run, they override the run's own."""
    from steepest import terminal
    from steepest.combining import combine
    from steepest.run import is_run
    from steepest.settings import HERE

    path, given = options["settings"], {"data": tuple(data)}
    if len(data) == 1 and is_run(Path(data[0])):
        path, given = str(Path(data[0], "settings.toml")), {}
    values = options | tables_of(options)
    given |= {name: values[name] for name in terminal.given_names(context) if name in values}
    given.pop("settings", None)
    return combine(path, {**given, "on": HERE})
