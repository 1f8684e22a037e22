"""Whether settings can work, seen before anything is read."""

from __future__ import annotations

import math

from steepest.data.lags import check_lags
from steepest.descent.losses import loss_by_name
from steepest.descent.optimizers import LINE_SEARCH, optimizer_by_name
from steepest.descent.schedules import schedule_by_name
from steepest.errors import SteepestError, nearest
from steepest.selection import check_select
from steepest.settings import AUTO, Settings
from steepest.trained import MODELS

MOST_SEED = 2**32 - 1
"""JAX makes its keys of 32 bits: with greater seeds, different ones would draw the same."""


def check(settings: Settings) -> None:
    """Refuse settings that can't work before anything is read.

    Raises
    ------
    SteepestError
        With what can be set instead.
    """
    if settings.model not in MODELS and ":" not in settings.model:
        raise SteepestError(
            f"There is no model {settings.model!r}.",
            hint=f"{nearest(settings.model, MODELS)} A Keras model is named by its builder, module:function.",
        )
    if settings.loss is not None:
        loss_by_name(settings.loss)
    optimizer_by_name(settings.optimizer)
    schedule_by_name(settings.schedule, 1.0, 1)
    _check_numbers(settings)
    _check_patience(settings)
    check_lags(settings.lags)
    if settings.select is not None:
        check_select(settings.select)
    if not settings.hidden or min(settings.hidden) < 1:
        asked = ",".join(map(str, settings.hidden))
        raise SteepestError(
            f"Each hidden layer needs at least one unit, and there is at least one; --hidden is {asked!r}.",
            hint="Try --hidden 64,32, or --model linear, which has none.",
        )


def _check_numbers(settings: Settings) -> None:
    rate = settings.learning_rate
    if rate != AUTO and (isinstance(rate, str) or not (rate > 0 and math.isfinite(rate))):
        raise SteepestError(
            f"A learning rate is a number above zero, or 'auto', not {rate}.",
            hint="Try --learning-rate 0.001.",
        )
    if settings.batch_size != "all" and (isinstance(settings.batch_size, str) or settings.batch_size < 1):
        raise SteepestError(f"A batch size is a whole number from 1, or 'all', not {settings.batch_size!r}.")
    if settings.epochs is not None and settings.epochs < 1:
        raise SteepestError(f"A fit needs at least one epoch, not {settings.epochs}.")
    if settings.local_steps < 1:
        raise SteepestError(f"A worker takes at least one step by itself, not {settings.local_steps}.")
    if settings.local_steps > 1 and settings.optimizer == LINE_SEARCH:
        raise SteepestError(
            "L-BFGS takes each step with all workers: on its own rows none knows where the loss falls.",
            hint="Leave --local-steps out, or take another optimizer.",
        )
    if not 0 <= settings.max_rejected <= 1:
        raise SteepestError(
            f"--max-rejected is a share of the rows, between 0 and 1, not {settings.max_rejected}."
        )
    if not settings.checkpoint_every >= 0:
        raise SteepestError(f"Checkpoints are seconds apart, 0 or more, not {settings.checkpoint_every}.")
    if not 0 <= settings.seed <= MOST_SEED:
        raise SteepestError(f"A seed is a whole number from 0 to {MOST_SEED}, not {settings.seed}.")


def _check_patience(settings: Settings) -> None:
    if settings.patience is not None and settings.patience < 1:
        raise SteepestError(f"Patience lasts at least one epoch, not {settings.patience}.")
    if settings.patience is not None and not settings.holds_out and settings.monitor.startswith("validation"):
        raise SteepestError(
            f"--patience watches {settings.monitor}, but no rows are held out.",
            hint="Hold some out (--validation 0.2), or add --monitor loss.",
        )
