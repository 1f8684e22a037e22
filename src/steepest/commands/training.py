"""Training: fit, resume, verify and cache. Heavy parts load within the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from steepest.commands.completing import (
    ACTIVATIONS,
    LOGS,
    LOSSES,
    MODELS,
    ON_DIVERGENCE,
    OPTIMIZERS,
    PLACES,
    SCHEDULES,
    InterruptedRun,
    RunFolder,
    among,
    choice,
    runs,
)
from steepest.commands.words import (
    DEFAULT,
    INTERRUPTED,
    Debug,
    Json,
    app,
    batch_size_of,
    hidden_units,
    option,
    print_json,
    rate_of,
    selection_of,
    tables_of,
    validation_of,
)
from steepest.settings import Settings


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="CSV, Parquet, Arrow/Feather, JSON lines, svmlight; files, globs, folders, URLs: one table."
        ),
    ] = None,
    target: Annotated[str | None, option("The column to predict.")] = None,
    out: Annotated[
        str | None, option("The run's folder, or its URL on HDFS (default: runs/NAME OF THE DATA).")
    ] = None,
    model: Annotated[
        str,
        option(
            "linear, mlp, or module:function that builds a Keras model (default: linear).",
            autocompletion=among(*MODELS),
        ),
    ] = DEFAULT.model,
    hidden: Annotated[
        str, option("Units of the mlp's hidden layers (default: 64,32).", parser=hidden_units, metavar="N,N")
    ] = ",".join(map(str, DEFAULT.hidden)),
    activation: Annotated[str, choice("{} (default: relu).", ACTIVATIONS)] = DEFAULT.activation,
    dropout: Annotated[
        float, option("Share of hidden units that a step leaves out (default: 0).")
    ] = DEFAULT.dropout,
    embedding: Annotated[
        int, option("Numbers that stand for each sparse feature in the mlp (default: 8).", min=1)
    ] = DEFAULT.embedding,
    loss: Annotated[str | None, choice("{} (default: by the target's type).", LOSSES)] = None,
    optimizer: Annotated[str, choice("{} (default: adam).", OPTIMIZERS)] = DEFAULT.optimizer,
    learning_rate: Annotated[
        str,
        option(
            "The (highest) rate, or auto, which finds it (default: auto).",
            parser=rate_of,
            metavar="RATE|auto",
            autocompletion=among("auto"),
        ),
    ] = str(DEFAULT.learning_rate),
    clip_norm: Annotated[float | None, option("Scale larger gradients down to this norm.")] = None,
    schedule: Annotated[str, choice("{} (default: constant).", SCHEDULES)] = DEFAULT.schedule,
    batch_size: Annotated[
        str,
        option(
            "Rows of a step, or all (default: 32).",
            parser=batch_size_of,
            metavar="N|all",
            autocompletion=among("all"),
        ),
    ] = str(DEFAULT.batch_size),
    epochs: Annotated[
        int | None, option("The most epochs (default: 10, or as many as 5,000 steps take, up to 500).")
    ] = None,
    tolerance: Annotated[
        float, option("Relative change of the loss that counts as converged (default: 1e-6).")
    ] = DEFAULT.tolerance,
    l1: Annotated[float, option("Penalty on the weights' absolute values (default: 0).")] = DEFAULT.l1,
    l2: Annotated[float, option("Penalty on the weights' squares (default: 0).")] = DEFAULT.l2,
    validation: Annotated[
        str,
        option(
            "Share of rows to hold out, last:SHARE for the last of them, a file of such rows, or 0 "
            "(default: 0.2, with lags the last).",
            parser=validation_of,
            metavar="SHARE|FILE",
        ),
    ] = str(DEFAULT.validation),
    validation_column: Annotated[
        str | None, option("Hold out the rows of which this column says true.", metavar="COLUMN")
    ] = None,
    split_by: Annotated[str | None, option("Hold whole values of this column out.", metavar="COLUMN")] = None,
    weights: Annotated[str | None, option("A column of row weights.", metavar="COLUMN")] = None,
    class_weight: Annotated[
        str | None,
        option(
            "balanced, or LABEL=WEIGHT,LABEL=WEIGHT.", metavar="WEIGHTS", autocompletion=among("balanced")
        ),
    ] = None,
    seed: Annotated[int, option("Decides every random draw (default: 0).", min=0)] = DEFAULT.seed,
    drop: Annotated[
        list[str] | None, option("A column to leave out; may be repeated.", metavar="COLUMN")
    ] = None,
    lags: Annotated[
        list[str] | None,
        option(
            "Learn from what stood in COLUMN so many rows before, such as demand:48,336; may be repeated.",
            metavar="COLUMN:N,N",
        ),
    ] = None,
    select: Annotated[
        str | None,
        option(
            "Learn from the K columns that tell most, or from as few as tell as much (default: all).",
            parser=selection_of,
            metavar="K|auto",
            autocompletion=among("auto"),
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        option(
            "What a column is, if its values do not tell: number, category, hashed, text, words, "
            "characters, list, or list:SEPARATOR of text; may be repeated.",
            "--kind",
            metavar="COLUMN=KIND",
        ),
    ] = None,
    cross: Annotated[
        list[str] | None,
        option(
            "Learn from the combinations of these columns' values; may be repeated.", metavar="COLUMN,COLUMN"
        ),
    ] = None,
    hash_bits: Annotated[
        int, option("Hashed values have 2^N places (default: 20).", min=10, max=28, metavar="N")
    ] = DEFAULT.hash_bits,
    minimum_count: Annotated[
        int | None,
        option(
            "In how many rows a value or word that is learned occurs at least (default: by the rows).",
            min=1,
            metavar="N",
        ),
    ] = None,
    max_rejected: Annotated[
        float, option("The greatest share of rows that may be unusable (default: 0.01).", metavar="SHARE")
    ] = DEFAULT.max_rejected,
    patience: Annotated[
        int | None,
        option("Stop after so many epochs without a better --monitor; keep the best epoch's weights."),
    ] = None,
    monitor: Annotated[
        str, option("The figure that patience watches (default: validation_loss).", metavar="FIGURE")
    ] = DEFAULT.monitor,
    curvature: Annotated[
        bool, option("Measure the loss's largest curvature after epochs.", "--curvature")
    ] = DEFAULT.curvature,
    on_divergence: Annotated[
        str,
        option(
            "At a step that is not finite: stop, or back-off to a third of the rate (default: stop).",
            autocompletion=among(*ON_DIVERGENCE),
        ),
    ] = DEFAULT.on_divergence,
    memory: Annotated[
        str | None, option("What to use at most (default: a quarter of what is free).", metavar="SIZE")
    ] = None,
    checkpoint_every: Annotated[
        float, option("Seconds between two checkpoints (default: 60).", metavar="SECONDS")
    ] = DEFAULT.checkpoint_every,
    log: Annotated[
        list[str] | None,
        option(
            "Log the descent: FILE.jsonl, tensorboard:FOLDER, mlflow:FOLDER or mlflow:URI; may be repeated.",
            metavar="LOG",
            autocompletion=among(*LOGS),
        ),
    ] = None,
    from_: Annotated[
        str | None,
        option(
            "Go on from a complete run: more epochs, other rates or other data.",
            "--from",
            metavar="RUN",
            autocompletion=runs,
        ),
    ] = None,
    settings: Annotated[
        str | None,
        option(
            "Settings from a file, such as a run's settings.toml; options override it.", metavar="FILE.toml"
        ),
    ] = None,
    on: Annotated[str, choice("{} (default: here).", PLACES, metavar="PLACE")] = DEFAULT.on,
    workers: Annotated[
        int | None, option("On Spark: tasks that descend together; one for each free core at most.", min=1)
    ] = None,
    master: Annotated[
        str | None,
        option("On Spark: yarn, spark://HOST:PORT, local[N] (default: as Spark is set up, else local[*])."),
    ] = None,
    local_steps: Annotated[
        int,
        option("On Spark: steps that each worker takes alone before all average (default: 1).", min=1),
    ] = DEFAULT.local_steps,
    shared: Annotated[
        str | None,
        option(
            "On Spark: a folder that all workers reach (default: in your home on the cluster's file system).",
            metavar="URL",
        ),
    ] = None,
    stalled: Annotated[
        float,
        option(
            "On Spark: without progress for so long, a worker is taken for stuck (default: 600).",
            metavar="SECONDS",
        ),
    ] = DEFAULT.stalled,
    overwrite: Annotated[bool, option("Replace a run of the same name.", "--overwrite")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model on a table and write a run's folder with its report; go on if it was interrupted."""
    from steepest import terminal
    from steepest.combining import combine

    values = locals()
    values = {**values, **tables_of(values), "data": tuple(data or ()), "log": tuple(log or ())}
    given = {name: values[name] for name in terminal.given_names(context) if name in Settings.__annotations__}
    if from_ is not None:
        given["from_"] = from_
    _train(combine(settings, given), overwrite, json_)


@app.command()
def resume(run: InterruptedRun, json_: Json = False, debug: Debug = False) -> None:
    """Go on with an interrupted run; it ends with the bytes of one that was never interrupted."""
    from steepest.unfinished import interrupted

    _train(interrupted(run), False, json_)


@app.command()
def verify(run: RunFolder, json_: Json = False, debug: Debug = False) -> None:
    """Prove on a run's own data that a descent that is interrupted ends with the same bytes."""
    from steepest import terminal
    from steepest.run import open_model
    from steepest.verification import verify as prove

    with terminal.Progress() as progress:
        found = prove(open_model(run), callbacks=[progress])
    print(found["says"])
    if json_:
        print_json(found)


@app.command()
def cache(
    clear: Annotated[bool, option("Remove what is there.", "--clear")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """List the encoded rows that are kept on disk for further epochs and runs, or remove them."""
    from steepest import terminal
    from steepest.data import cache as kept

    if clear:
        freed = kept.clear()
        print(f"{freed / 2**20:,.1f} MiB freed in {kept.cache_folder()}")
        found = {"folder": str(kept.cache_folder()), "freed": freed}
    else:
        found = terminal.print_cache(kept.cache_folder(), kept.entries())
    if json_:
        print_json(found)


def _train(wanted: Settings, overwrite: bool, json_: bool) -> None:
    """Fit, and print what came of it."""
    from steepest import terminal
    from steepest.fitting import carry_out

    try:
        with terminal.Progress() as progress:
            run = carry_out(wanted, callbacks=[progress], say=terminal.say, overwrite=overwrite)
    except KeyboardInterrupt as interruption:
        if not interruption.args:
            raise
        terminal.say(f"steepest: {interruption}")
        sys.exit(INTERRUPTED)
    terminal.print_fit(run)
    if json_:
        print_json(terminal.summary(run))
