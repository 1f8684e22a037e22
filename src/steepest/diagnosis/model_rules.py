"""Rules on what was learned from what: each gives one finding or none, and is called as its finding is."""

from __future__ import annotations

import math

from steepest.data.lags import Lags
from steepest.diagnosis.descent_rules import (
    dead_units,
    diverged,
    noise_dominated,
    rate_too_high,
    rate_too_low,
    vanishing_gradient,
)
from steepest.diagnosis.verdicts import LEFT, SURE, WORSE, Evidence, Finding, finding, get

ALONE = 0.95
"""Skill of a single column: what is measured before the fact rarely explains so much of it."""

TELLS = 0.05
"""Standard error of a skill up to which the held-out rows can tell that there is none."""

NO_SKILL, BEHIND = 0.01, 0.1
"""Skill that is as good as none, and how far behind the trees is much."""


def _ran_badly(evidence: Evidence) -> bool:
    """Tell whether the descent itself is to blame for what was or was not learned."""
    to_blame = (diverged, rate_too_high, rate_too_low, noise_dominated, dead_units, vanishing_gradient)
    return any(rule(evidence) for rule in to_blame)


def overfitting(evidence: Evidence) -> Finding | None:
    """The loss on held-out rows was better before the end."""
    seen = get(evidence, "course", "validation")
    if not seen or get(evidence, "settings", "patience") or _ran_badly(evidence):
        return None
    losses = evidence["course"]["losses"]
    at_best = losses[max(0, math.ceil(seen["best_epoch"] / evidence["course"]["epochs"] * len(losses)) - 1)]
    if losses[-1] >= at_best:
        return None
    rise = seen["last"] - seen["best"]
    if rise <= max(WORSE * abs(seen["best"]), LEFT * (seen["first"] - seen["best"])):
        return None
    return finding(
        "overfitting",
        "warning",
        f"The loss on held-out rows was {seen['best']:.4g} after epoch {seen['best_epoch']} and is "
        f"{seen['last']:.4g} at the end.",
        f"from epoch {seen['best_epoch']} on",
        f"--epochs {seen['best_epoch']}, or --patience 3",
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """Trees find much more than the model, which does no better on its own training rows."""
    model, trees, error = (get(evidence, "skill", name) for name in ("validation", "trees", "error"))
    training = get(evidence, "skill", "training")
    if model is None or trees is None or _ran_badly(evidence):
        return None
    if trees - max(model, training or 0.0) < max(BEHIND, SURE * (error or 0.0)) or model > 0.8 * trees:
        return None
    linear = get(evidence, "settings", "model") == "linear"
    return finding(
        "underfitting",
        "warning",
        f"The model explains {model:.1%} of the held-out target, small boosted trees {trees:.1%}.",
        f"the whole model (training rows: {training:.1%})" if training is not None else "the whole model",
        "--model mlp" if linear else "more --epochs, or larger --hidden layers",
    )


def class_never_predicted(evidence: Evidence) -> Finding | None:
    """A class that held-out rows have is not predicted for any of them."""
    classes = evidence.get("classes")
    if not classes:
        return None
    true, predicted = classes["true"], classes["predicted"]
    never = [
        index
        for index in range(len(true))
        if not predicted[index] and true[index] >= max(5, 0.01 * sum(true))
    ]
    if not never:
        return None
    names = ", ".join(repr(classes["labels"][index]) for index in never[:5])
    rows = sum(true[index] for index in never)
    # With probabilities that are worth something, a rare class below one half is no fault.
    useful = (get(evidence, "skill", "validation") or 0.0) > NO_SKILL
    return finding(
        "class_never_predicted",
        "information" if useful else "warning",
        f"{rows:,} of {sum(true):,} held-out rows are {names}, and none is predicted to be.",
        f"class {names}",
        "--class-weight balanced",
    )


def leaking_column(evidence: Evidence) -> Finding | None:
    """One column alone predicts nearly everything, and is no lag, which was known before."""
    columns = evidence.get("columns") or {}
    lags = Lags(get(evidence, "settings", "lags") or {}).named
    alone = [name for name, skill in columns.items() if skill >= ALONE and name not in lags]
    if len(columns) < 2 or not alone:
        return None
    named = ", ".join(f"{name!r} {columns[name]:.1%}" for name in alone[:5])
    return finding(
        "leaking_column",
        "warning",
        f"One column alone explains nearly all of the held-out target: {named}. Is it known before?",
        f"column {', '.join(map(repr, alone[:5]))}",
        " ".join(f"--drop {name!r}" for name in alone[:5]),
    )


def target_scale(evidence: Evidence) -> Finding | None:
    """The target's scale, or a single row of it, rules the loss."""
    target = evidence.get("target")
    if not target or target["kind"] != "number":
        return None
    mean, deviation, extreme = target["mean"], target["deviation"], target.get("extreme") or 0.0
    if not 0.01 <= deviation <= 100 or abs(mean) > 100 * deviation:
        says = f"As the loss sees it, the target has the mean {mean:.4g} and the deviation {deviation:.4g}"
        advice = "learn (target - mean) / deviation instead: gradients grow with its scale"
    elif extreme > LEFT:
        says = f"One row holds {extreme:.0%} of the sum of squares of the target"
        advice = "--loss huber"
    else:
        return None
    return finding("target_scale", "warning", f"{says}.", "the target", advice)


def no_signal(evidence: Evidence) -> Finding | None:
    """Neither the model nor trees predict held-out rows better than the mean does."""
    model, trees, error = (get(evidence, "skill", name) for name in ("validation", "trees", "error"))
    if model is None or trees is None:
        return None
    if error is None or error > TELLS or max(model, trees) > max(NO_SKILL, 2 * error):
        return None
    return finding(
        "no_signal",
        "warning",
        f"The model explains {model:.1%} of the held-out target, small boosted trees {trees:.1%} "
        f"(± {error:.1%}).",
        "all columns",
        "other columns: nothing in these tells the target from its mean",
    )
