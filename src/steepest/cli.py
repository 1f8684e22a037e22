"""Front end: the command line. Heavy parts load within the commands, so that ``--help`` is quick.

Exit status: 0 if all went well, 2 for anything that the user can put right, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from steepest.errors import SteepestError
from steepest.settings import AUTO, Settings
from steepest.trials.options import Variants, with_fits_options

app = typer.Typer(
    help="Gradient descent you can see, on data of any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT = Settings()

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What Typer raises for words that it does not understand; of its kinds, Typer gives a name to one only."""

INTERRUPTED = 130
"""What Typer returns after Ctrl-C."""

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object last.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Data = Annotated[
    list[str],
    typer.Argument(help="CSV, Parquet, Arrow/Feather or JSON lines; files, globs, folders or URLs."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


def _hidden(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list such as 64,32") from None


def _batch_size(text: str) -> str | int:
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor 'all'") from None


def _rate(text: str) -> str | float:
    if text == AUTO:
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor {AUTO!r}") from None


def _select(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _validation(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _option(help_: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_, show_default=False, **more)


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="CSV, Parquet, Arrow/Feather or JSON lines; files, globs, folders or URLs, one table."
        ),
    ] = None,
    target: Annotated[str | None, _option("The column to predict.")] = None,
    out: Annotated[str | None, _option("The run's folder (default: runs/NAME OF THE DATA).")] = None,
    model: Annotated[
        str, _option("linear, mlp, or module:function that builds a Keras model (default: linear).")
    ] = DEFAULT.model,
    hidden: Annotated[
        str, _option("Units of the mlp's hidden layers (default: 64,32).", parser=_hidden, metavar="N,N")
    ] = ",".join(map(str, DEFAULT.hidden)),
    activation: Annotated[str, _option("relu, tanh or gelu (default: relu).")] = DEFAULT.activation,
    dropout: Annotated[
        float, _option("Share of hidden units that a step leaves out (default: 0).")
    ] = DEFAULT.dropout,
    loss: Annotated[
        str | None,
        _option(
            "mean_squared_error, mean_absolute_error, huber, quantile, poisson, binary_cross_entropy, "
            "categorical_cross_entropy or hinge (default: by the target's type)."
        ),
    ] = None,
    optimizer: Annotated[
        str, _option("sgd, momentum, nesterov, adagrad, rmsprop, adam or adamw (default: adam).")
    ] = DEFAULT.optimizer,
    learning_rate: Annotated[
        str,
        _option(
            "The (highest) rate, or auto, which finds it (default: auto).", parser=_rate, metavar="RATE|auto"
        ),
    ] = str(DEFAULT.learning_rate),
    clip_norm: Annotated[float | None, _option("Scale larger gradients down to this norm.")] = None,
    schedule: Annotated[
        str,
        _option(
            "constant, step, exponential, inverse_time, polynomial, cosine, cosine_restarts, one_cycle or "
            "reduce_on_plateau (default: constant)."
        ),
    ] = DEFAULT.schedule,
    batch_size: Annotated[
        str, _option("Rows of a step, or all (default: 32).", parser=_batch_size, metavar="N|all")
    ] = str(DEFAULT.batch_size),
    epochs: Annotated[
        int | None, _option("The most epochs (default: 10, or as many as 5,000 steps take, up to 500).")
    ] = None,
    tolerance: Annotated[
        float, _option("Relative change of the loss that counts as converged (default: 1e-6).")
    ] = DEFAULT.tolerance,
    l1: Annotated[float, _option("Penalty on the weights' absolute values (default: 0).")] = DEFAULT.l1,
    l2: Annotated[float, _option("Penalty on the weights' squares (default: 0).")] = DEFAULT.l2,
    validation: Annotated[
        str,
        _option(
            "Share of rows to hold out, a file of such rows, or 0 (default: 0.2).",
            parser=_validation,
            metavar="SHARE|FILE",
        ),
    ] = str(DEFAULT.validation),
    split_by: Annotated[
        str | None, _option("Hold whole values of this column out.", metavar="COLUMN")
    ] = None,
    weights: Annotated[str | None, _option("A column of row weights.", metavar="COLUMN")] = None,
    class_weight: Annotated[
        str | None, _option("balanced, or LABEL=WEIGHT,LABEL=WEIGHT.", metavar="WEIGHTS")
    ] = None,
    seed: Annotated[int, _option("Decides every random draw (default: 0).", min=0)] = DEFAULT.seed,
    drop: Annotated[
        list[str] | None, _option("A column to leave out; may be repeated.", metavar="COLUMN")
    ] = None,
    select: Annotated[
        str | None,
        _option(
            "Learn from the K columns that tell most, or from as few as tell as much (default: all).",
            parser=_select,
            metavar="K|auto",
        ),
    ] = None,
    max_rejected: Annotated[
        float, _option("The greatest share of rows that may be unusable (default: 0.01).", metavar="SHARE")
    ] = DEFAULT.max_rejected,
    patience: Annotated[
        int | None,
        _option("Stop after so many epochs without a better --monitor; keep the best epoch's weights."),
    ] = None,
    monitor: Annotated[
        str, _option("The figure that patience watches (default: validation_loss).", metavar="FIGURE")
    ] = DEFAULT.monitor,
    curvature: Annotated[
        bool, _option("Measure the loss's largest curvature after epochs.", "--curvature")
    ] = DEFAULT.curvature,
    on_divergence: Annotated[
        str,
        _option("At a step that is not finite: stop, or back-off to a third of the rate (default: stop)."),
    ] = DEFAULT.on_divergence,
    memory: Annotated[
        str | None, _option("What to use at most (default: a quarter of what is free).", metavar="SIZE")
    ] = None,
    checkpoint_every: Annotated[
        float, _option("Seconds between two checkpoints (default: 60).", metavar="SECONDS")
    ] = DEFAULT.checkpoint_every,
    from_: Annotated[
        str | None,
        _option(
            "Go on from a complete run: more epochs, other rates or other data.", "--from", metavar="RUN"
        ),
    ] = None,
    settings: Annotated[
        str | None,
        _option(
            "Settings from a file, such as a run's settings.toml; options override it.", metavar="FILE.toml"
        ),
    ] = None,
    overwrite: Annotated[bool, _option("Replace a run of the same name.", "--overwrite")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model on a table and write a run's folder with its report; go on if it was interrupted."""
    from steepest import terminal
    from steepest.settings import combine

    values = {**locals(), "data": tuple(data or ()), "drop": tuple(drop or ())}
    given = {name: values[name] for name in terminal.given_names(context) if name in Settings.__annotations__}
    if from_ is not None:
        given["from_"] = from_
    _train(combine(settings, given), overwrite, json_)


@app.command()
def resume(run: RunFolder, json_: Json = False, debug: Debug = False) -> None:
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
        _print_json(found)


@app.command()
def cache(
    clear: Annotated[bool, _option("Remove what is there.", "--clear")] = False,
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
        _print_json(found)


def _train(wanted: Settings, overwrite: bool, json_: bool) -> None:
    """Fit, and print what came of it."""
    from steepest import terminal
    from steepest.training import fit as train

    try:
        with terminal.Progress() as progress:
            run = train(wanted, callbacks=[progress], say=terminal.say, overwrite=overwrite)
    except KeyboardInterrupt as interruption:
        if not interruption.args:
            raise
        terminal.say(f"steepest: {interruption}")
        sys.exit(INTERRUPTED)
    terminal.print_fit(run)
    if json_:
        _print_json(terminal.summary(run))


@app.command()
def predict(
    run: RunFolder,
    data: Data,
    out: Annotated[Path, typer.Option(help="The file to write: CSV or Parquet by its ending.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Predict rows with a run's model; the file has a row for each row of DATA, in the same order."""
    from steepest.data.rows import settled
    from steepest.data.source import open_source
    from steepest.data.writing import check_ending, write_tables
    from steepest.prediction import predictions
    from steepest.run import open_model

    check_ending(out)
    opened = open_model(run)
    source = open_source(data, columns=[column.name for column in opened.plan.columns], max_rejected=0.0)
    if out.resolve() in {Path(file).resolve() for file in source.names}:
        raise SteepestError(
            f"{out} holds rows to predict; it is left as it is.", hint="Choose another --out."
        )
    rows = settled(source, lambda settled: write_tables(predictions(opened, settled), out))
    print(f"{rows:,} predictions -> {out}")
    if json_:
        _print_json({"run": str(run), "rows": rows, "out": str(out)})


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
        _print_json(figures)


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
        _print_json({"run": str(run), "findings": opened.findings})


@app.command()
def show(run: RunFolder, json_: Json = False, debug: Debug = False) -> None:
    """Tell what a run trained, how it went, and where its report is."""
    from steepest import terminal
    from steepest.run import open_run

    opened = open_run(run)
    terminal.print_run(opened)
    if json_:
        _print_json(terminal.summary(opened))


@app.command()
def explore(
    data: Data,
    target: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path | None, _option("The HTML file to write.", metavar="FILE.html")] = None,
    drop: Annotated[
        list[str] | None, _option("A column to leave out; may be repeated.", metavar="COLUMN")
    ] = None,
    max_rejected: Annotated[
        float, _option("The greatest share of rows that may be unusable (default: 0.01).", metavar="SHARE")
    ] = DEFAULT.max_rejected,
    seed: Annotated[int, _option("Draws the sample (default: 0).", min=0)] = DEFAULT.seed,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Look at a table before training: columns, what they tell of the target, what a descent will meet."""
    from steepest import terminal
    from steepest.exploration.exploring import explore as look
    from steepest.exploration.showing import print_exploration

    with terminal.Progress() as progress:
        found = look(
            data, target, drop=drop or (), max_rejected=max_rejected, seed=seed, say=terminal.say,
            seen=progress.on_rows_seen,
        )  # fmt: skip
    if out is not None:
        found.write_report(out)
    print_exploration(found.record, out)
    if json_:
        _print_json(found.record)


Many = partial(_option, parser=_several, metavar="A,B")


@app.command(cls=Variants)
@with_fits_options(fit)
def compare(
    context: typer.Context,
    data: Data,
    variants: Annotated[
        list[str] | None,
        _option(
            "What each differs in, such as batch_size=all or batch_size=32,optimizer=sgd; one word for each "
            "(default: batch_size=all batch_size=32 batch_size=1).",
            metavar="SETTING=VALUE,... ...",
        ),
    ] = None,
    out: Annotated[Path, _option("The folder to write (default: comparison).")] = Path("comparison"),
    overwrite: Annotated[bool, _option("Replace a comparison of the same name.", "--overwrite")] = False,
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
        _print_json(found.record)


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
    out: Annotated[Path | None, _option("A folder to write tune.json and report.html to.")] = None,
    overwrite: Annotated[bool, _option("Replace a folder of the same name.", "--overwrite")] = False,
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
            wanted, optimizers=optimizers, batch_sizes=[_batch_size(each) for each in batch_sizes],
            schedules=schedules, out=out, overwrite=overwrite, say=terminal.say, seen=progress.on_rows_seen,
        ).to_json()  # fmt: skip
    print_tuning(found, out)
    if json_:
        _print_json(found)


def _settings(context: typer.Context, options: dict[str, Any], data: list[str]) -> Settings:
    """Return the settings that were given by fit's options; of a run, they override the run's own."""
    from steepest import terminal
    from steepest.run import is_run
    from steepest.settings import combine

    path, given = options["settings"], {"data": tuple(data)}
    if len(data) == 1 and is_run(Path(data[0])):
        path, given = str(Path(data[0], "settings.toml")), {}
    values = options | {"drop": tuple(options["drop"] or ())}
    given |= {name: values[name] for name in terminal.given_names(context) if name in values}
    given.pop("settings", None)
    return combine(path, given)


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line on standard error."""
    if arguments is None:
        # This is the whole process: a kill ends it as Ctrl-C does, leaving nothing half-written.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(words or ["--help"], prog_name="steepest", standalone_mode=False)
    except SteepestError as error:
        if "--debug" in words:
            raise
        _fail(error, words)
    except USAGE_ERROR as error:
        what, command = error.format_message(), error.ctx.command_path if error.ctx else "steepest"
        what += "" if what.endswith((".", "?")) else "."
        _fail(SteepestError(what, hint=f"See {command} --help."), words)
    if status == INTERRUPTED:
        print("steepest: interrupted; nothing was written.", file=sys.stderr)
        sys.exit(status)


def _fail(error: SteepestError, words: list[str]) -> NoReturn:
    print(f"steepest: {' '.join(str(error).split())}", file=sys.stderr)
    if "--json" in words:
        _print_json({"error": error.what, "hint": error.hint})
    sys.exit(2)
