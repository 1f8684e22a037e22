"""What the shell is told of values that options and arguments take; nothing heavy, so that Tab is quick.

Where nothing is told, the shell completes names of files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from steepest.commands.words import option

MODELS = ("linear", "mlp")
ACTIVATIONS = ("relu", "tanh", "gelu")
LOSSES = (
    *("mean_squared_error", "mean_absolute_error", "huber", "quantile", "poisson"),
    *("binary_cross_entropy", "categorical_cross_entropy", "hinge"),
)
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lbfgs")
SCHEDULES = (
    *("constant", "step", "exponential", "inverse_time", "polynomial", "cosine", "cosine_restarts"),
    *("one_cycle", "reduce_on_plateau"),
)
ON_DIVERGENCE = ("stop", "back-off")
PLACES = ("here", "spark")
LOGS = ("tensorboard:", "mlflow:")

Completer = Callable[[str], list[str]]


def among(*names: str) -> Completer:
    """Return what completes a word to one of the names.

    Examples
    --------
    >>> among("adam", "adamw", "sgd")("ad")
    ['adam', 'adamw']
    """

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def choice(help_: str, names: tuple[str, ...], **more: Any) -> Any:
    """Return an option that takes one of the names, which stand where the help has ``{}``."""
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    return option(help_.format(listed), autocompletion=among(*names), **more)


def runs(incomplete: str) -> list[str]:
    """Return complete runs: those in ``runs``, and those where the word leads."""
    return _folders(incomplete, "*/record.json", "")


def interrupted_runs(incomplete: str) -> list[str]:
    """Return the names of runs that can be resumed."""
    return _folders(incomplete, "*.unfinished/settings.toml", ".unfinished")


def _folders(incomplete: str, pattern: str, ending: str) -> list[str]:
    places = {Path(f"{incomplete}-").parent, Path("runs")}
    found = {str(each.parent).removesuffix(ending) for place in places for each in place.glob(pattern)}
    return sorted(name for name in found if name.startswith(incomplete))


RunFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The folder of a run, or its URL on HDFS.", autocompletion=runs),
]
InterruptedRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="The folder of a run, or its URL on HDFS.", autocompletion=interrupted_runs
    ),
]
