"""Findings: verdicts on a descent by pure rules over plain evidence.

Evidence is a dict of JSON types, which `steepest.diagnosis.examination` makes and a run stores; every part but
``course`` may be missing, which silences the rules that need it:

=============  ==================================================================================
``course``     how the loss went: `course`
``rule``       ``name``, ``momentum`` (β), ``batch_size`` (rows, ``None`` for all), ``rows``
``settings``   what the front end was asked for
``start``      measured before the first step, `steepest.diagnosis.measures`: ``loss``,
               ``held_out_loss``, ``gradient_norm``, ``noise``, ``scaled_noise``, ``noise_scale``,
               ``curvature``, ``limit``, ``limit_rate``, ``layers``
``end``        the same after the last good step, and ``ahead``, the held-out loss that a faster
               descent would have
``target``     ``kind``, ``mean``, ``deviation``, ``extreme`` (share of the largest row in the sum of
               squares) as the loss sees it
``inputs``     `steepest.diagnosis.tables.conditioning`
``columns``    name -> skill alone, the best ones
``skill``      ``training``, ``validation``, ``trees``, ``error``
``classes``    ``labels``, and counts ``true`` and ``predicted`` on held-out rows
``failure``    of a step that was not finite: ``step``, ``epoch``, ``learning_rate``, ``rows``,
               ``layer``
=============  ==================================================================================

Each rule gives one finding or none. The thresholds are wide, because a healthy run must get no warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Evidence = Mapping[str, Any]
Finding = dict[str, str]

BLOCKS = 20
"""Parts into which a descent is cut to see its course: each averages a twentieth of the steps."""

SURE = 4.0
"""Standard errors beyond which a difference of mean losses is no accident."""

ROSE = 0.2
"""Share of what was won that may be lost again: less than that is an ordinary descent's last noise."""

FAR_BELOW = 20.0
"""Times below the limit from which a rate is low: noise of small batches can ask for a tenth."""

LEFT = 0.1
"""Share of all progress that a descent must have left open before its speed is worth a word."""

NOISE_COST = 0.1
"""Share of all progress that noise may cost."""

ILL = 1e3
"""Condition number from which on it matters: scaled tables of independent columns lie below 100."""

FLAT, FLAT_BLOCKS = 0.005, 6
"""A block in which less than this share of all progress is made is flat; 30% of the descent is a plateau."""

WORSE = 0.02
"""Share of the best held-out loss by which the last may be above it: less is chance and early stopping's due."""

DEAD = 0.4
"""Share of a layer's units: He's start loses a few in a hundred, and each layer can spare some."""

FADED = 1e-3
"""Ratio of gradient norms of two layers: neighbours of a healthy network lie within a factor of ten."""

ALONE = 0.95
"""Skill of a single column: what is measured before the fact rarely explains so much of it."""

NO_SKILL, BEHIND = 0.01, 0.1
"""Skill that is as good as none, and how far behind the trees is much."""


def course(steps: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Any]:
    """Return how a descent went, from its history: see `steepest.Result`.

    Returns
    -------
    dict
        ``steps``, ``epochs``; ``losses`` and ``errors``, mean loss and its standard error in up to `BLOCKS`
        parts of the steps that were finite; ``first_steps``, the first step of each part; ``rate_first``,
        ``rate_highest``, ``rate_last``; ``validation``: ``first``, ``best``, ``best_epoch``, ``last``, or
        ``None``.

    Examples
    --------
    >>> import pandas as pd
    >>> steps = pd.DataFrame({"loss": [3.0, 2.0], "learning_rate": [0.1, 0.1]})
    >>> course(steps, pd.DataFrame({"loss": [2.5]}))["losses"]
    [3.0, 2.0]
    """
    losses = steps["loss"].to_numpy(np.float64)
    kept = np.flatnonzero(np.isfinite(losses))
    parts = np.array_split(kept, max(1, min(BLOCKS, len(kept))))
    rates = steps["learning_rate"].to_numpy(np.float64)
    return {
        "steps": len(steps),
        "epochs": len(epochs),
        "losses": [float(losses[part].mean()) for part in parts if len(part)],
        "errors": [float(losses[part].std() / math.sqrt(len(part))) for part in parts if len(part)],
        "first_steps": [int(part[0]) + 1 for part in parts if len(part)],
        "rate_first": float(rates[0]),
        "rate_highest": float(rates.max()),
        "rate_last": float(rates[-1]),
        "validation": _validation(epochs),
    }


def _validation(epochs: pd.DataFrame) -> dict[str, Any] | None:
    if "validation_loss" not in epochs or not len(epochs):
        return None
    losses: npt.NDArray[np.float64] = epochs["validation_loss"].to_numpy(np.float64)
    if not np.isfinite(losses).all():
        return None
    best = int(losses.argmin())
    return {
        "first": float(losses[0]),
        "best": float(losses[best]),
        "best_epoch": best + 1,
        "last": float(losses[-1]),
    }


def findings(evidence: Evidence) -> list[Finding]:
    """Return what the evidence says, errors first, in the order of the rules.

    Returns
    -------
    list of dict
        ``{"finding", "severity", "evidence", "where", "try"}``, all text; the severity is ``"error"``,
        ``"warning"`` or ``"information"``.

    Examples
    --------
    >>> course = {"steps": 7, "epochs": 1, "losses": [1.0, 9.0], "errors": [0.0, 0.0]}
    >>> failure = {"step": 7, "epoch": 1, "learning_rate": 3.0}
    >>> [each["finding"] for each in findings({"course": course, "failure": failure})]
    ['diverged']
    """
    found = [each for rule in RULES for each in [rule(evidence)] if each]
    order = ("error", "warning", "information")
    return sorted(found, key=lambda each: order.index(each["severity"]))


def _finding(name: str, severity: str, evidence: str, where: str, advice: str) -> Finding:
    return {"finding": name, "severity": severity, "evidence": evidence, "where": where, "try": advice}


def _get(evidence: Evidence, *path: str) -> Any:
    """Return what is at the end of a path, or ``None`` where a part is missing."""
    here: Any = evidence
    for name in path:
        here = here.get(name) if isinstance(here, Mapping) else None
    return here


def _rounded(rate: float) -> str:
    """Return a rate with one digit, as a person would choose it.

    Examples
    --------
    >>> _rounded(0.0349), _rounded(12.0)
    ('0.03', '10')
    """
    return f"{float(f'{rate:.0e}'):g}"


def _losses(evidence: Evidence) -> tuple[float, float] | None:
    """Return the sample's loss at the start and at the end, on held-out rows where there are some."""
    for name in ("held_out_loss", "loss"):
        start, end = _get(evidence, "start", name), _get(evidence, "end", name)
        if start is not None and end is not None:
            return start, end
    return None


def _lower_rate(evidence: Evidence, rate: float) -> str:
    limit = _get(evidence, "end", "limit_rate")
    return _rounded(limit / 2 if limit and limit < rate else rate / 10)


def diverged(evidence: Evidence) -> Finding | None:
    """A step was not finite."""
    failure = evidence.get("failure")
    if not failure:
        return None
    rate, limit = failure["learning_rate"], _get(evidence, "end", "limit_rate")
    above = (
        f", {rate / limit:.3g} times the largest stable one ({limit:.3g})" if limit and rate > limit else ""
    )
    losses = evidence["course"]["losses"]
    went = f"; before that the loss went from {losses[0]:.4g} to {losses[-1]:.4g}" if len(losses) > 1 else ""
    layer = f", {failure['layer']}" if failure.get("layer") else ""
    rows = [*failure.get("rows", [])]
    named = f", rows {', '.join(map(str, rows[:5]))}{' ...' if len(rows) > 5 else ''}" if rows else ""
    return _finding(
        "diverged",
        "error",
        f"The loss or its gradient was not finite at a learning rate of {rate:g}{above}{went}.",
        f"step {failure['step']:,} (epoch {failure['epoch']}){layer}{named}",
        f"--learning-rate {_lower_rate(evidence, rate)}",
    )


def rate_too_high(evidence: Evidence) -> Finding | None:
    """The loss ended above where it began, or lost again much of what was won."""
    went, losses = evidence["course"], evidence["course"]["losses"]
    if evidence.get("failure") or len(losses) < 2:
        return None
    lowest = int(np.argmin(losses))
    margin = SURE * math.hypot(went["errors"][lowest], went["errors"][-1])
    margin += 1e-3 * abs(losses[0])  # less is not worth a word
    rose = losses[-1] - losses[lowest] > max(margin, ROSE * (losses[0] - losses[lowest]))
    start, end = _get(evidence, "start", "loss"), _get(evidence, "end", "loss")
    worse = start is not None and end is not None and end > start + margin
    if not (rose or worse):
        return None
    rate, limit = went["rate_last"], _get(evidence, "end", "limit_rate")
    against = f" The rate, {rate:g}, is {rate / limit:.3g} times the largest stable one." if limit else ""
    first, last = (losses[lowest], losses[-1]) if rose else (start, end)
    return _finding(
        "rate_too_high",
        "warning",
        f"The training loss rose from {first:.4g} to {last:.4g}.{against}",
        f"from step {went['first_steps'][lowest]:,} on" if rose else "between the start and the end",
        f"--learning-rate {_lower_rate(evidence, rate)}",
    )


def rate_too_low(evidence: Evidence) -> Finding | None:
    """The rate is far below the limit, and much was left to gain."""
    rate, limit = _get(evidence, "course", "rate_highest"), _get(evidence, "end", "limit_rate")
    losses, ahead = _losses(evidence), _get(evidence, "end", "ahead")
    if not rate or not limit or losses is None or ahead is None or limit < FAR_BELOW * rate:
        return None
    start, end = losses
    if not end - ahead > LEFT * (start - ahead) > 0:
        return None
    return _finding(
        "rate_too_low",
        "warning",
        f"The descent is about {limit / 2 / rate:.2g} times slower than it could be: the largest stable rate is "
        f"{limit:.3g}, and the loss could fall from {end:.4g} to {ahead:.4g} in a few more steps at a good one.",
        f"a learning rate of {rate:g}",
        f"--learning-rate {_rounded(min(limit / 4, 100 * rate))}",
    )


def edge_of_stability(evidence: Evidence) -> Finding | None:
    """The curvature is at its limit, and the descent improves all the same."""
    rate, limit = _get(evidence, "course", "rate_last"), _get(evidence, "end", "limit_rate")
    start, end = _get(evidence, "start", "loss"), _get(evidence, "end", "loss")
    if evidence.get("failure") or not rate or not limit or start is None or end is None:
        return None
    if rate < 0.95 * limit or end >= start or rate_too_high(evidence):
        return None
    return _finding(
        "edge_of_stability",
        "information",
        f"The largest curvature, {evidence['end']['curvature']:.4g}, is {rate / limit:.3g} times what the rule "
        f"follows at a rate of {rate:g}; the loss fell from {start:.4g} to {end:.4g} nevertheless.",
        "at the end",
        "nothing: networks hover at this edge and improve. A smoother descent has a lower --learning-rate",
    )


def ill_conditioned(evidence: Evidence) -> Finding | None:
    """The inputs ask for more steps than there were, and the loss is still falling."""
    condition, went = _get(evidence, "inputs", "condition"), evidence["course"]
    losses = went["losses"]
    if not condition or condition < ILL or len(losses) < BLOCKS or rate_too_low(evidence):
        return None
    rule = evidence.get("rule") or {}
    needed = math.sqrt(condition) if rule.get("momentum") else condition
    late = losses[-BLOCKS // 4] - losses[-1]
    falling = late > max(WORSE * (losses[0] - losses[-1]), SURE * math.hypot(*went["errors"][-2:]))
    if needed < went["steps"] or not falling:
        return None
    smallest, largest = (", ".join(evidence["inputs"][f"{side}_columns"]) for side in ("smallest", "largest"))
    return _finding(
        "ill_conditioned",
        "warning",
        f"The inputs' condition number is {condition:.2g}: descent takes about {needed:,.0f} steps for each digit, "
        f"and took {went['steps']:,}. The loss is still falling.",
        f"columns {smallest} (smallest direction), {largest} (largest)",
        f"--drop {evidence['inputs']['smallest_columns'][0]!r}, or --optimizer adam",
    )


def plateau(evidence: Evidence) -> Finding | None:
    """The loss stood still for long before it fell further."""
    went = evidence["course"]
    losses = np.asarray(went["losses"])
    if len(losses) < BLOCKS or losses[0] - losses[-1] < SURE * (went["errors"][0] + went["errors"][-1]):
        return None
    progress = losses[0] - losses.min()
    flat = abs(np.diff(losses)) < FLAT * progress
    longest, first, begin = 0, 0, 0
    for index, still in enumerate(flat):
        begin = begin if still else index + 1
        if index + 1 - begin > longest:
            longest, first = index + 1 - begin, begin
    last = first + longest
    if longest < FLAT_BLOCKS or losses[last] - losses[-1] < ROSE * progress:
        return None
    begins, ends = went["first_steps"][first], went["first_steps"][last]
    return _finding(
        "plateau",
        "warning",
        f"The loss stood still near {losses[first]:.4g} for {longest / BLOCKS:.0%} of the steps before it fell "
        f"to {losses[-1]:.4g}.",
        f"steps {begins:,} to {ends:,}",
        f"--learning-rate {_rounded(3 * went['rate_highest'])}, or --optimizer adam",
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """The loss on held-out rows was better before the end."""
    seen = _get(evidence, "course", "validation")
    if not seen or _get(evidence, "settings", "patience") or rate_too_high(evidence):
        return None
    rise = seen["last"] - seen["best"]
    if rise <= max(WORSE * abs(seen["best"]), LEFT * (seen["first"] - seen["best"])):
        return None
    return _finding(
        "overfitting",
        "warning",
        f"The loss on held-out rows was {seen['best']:.4g} after epoch {seen['best_epoch']} and is "
        f"{seen['last']:.4g} at the end.",
        f"from epoch {seen['best_epoch']} on",
        f"--epochs {seen['best_epoch']}, or --patience 3",
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """Trees find much more than the model, which does no better on its own training rows."""
    model, trees, error = (_get(evidence, "skill", name) for name in ("validation", "trees", "error"))
    training = _get(evidence, "skill", "training")
    if model is None or trees is None or rate_too_low(evidence) or rate_too_high(evidence):
        return None
    if trees - max(model, training or 0.0) < max(BEHIND, SURE * (error or 0.0)) or model > 0.8 * trees:
        return None
    linear = _get(evidence, "settings", "model") == "linear"
    return _finding(
        "underfitting",
        "warning",
        f"The model explains {model:.1%} of the held-out target, small boosted trees {trees:.1%}.",
        f"the whole model (training rows: {training:.1%})" if training is not None else "the whole model",
        "--model mlp" if linear else "more --epochs, or larger --hidden layers",
    )


def noise_dominated(evidence: Evidence) -> Finding | None:
    """The noise of small batches costs much of the progress.

    At a constant rate η with batches of B rows a descent ends ``η tr(PΣ) / 4B`` above its minimum, ``η / (1 - β)``
    for momentum. Source: S. Mandt et al., *Stochastic Gradient Descent as Approximate Bayesian Inference*,
    2017, section 3.
    """
    rule, end = evidence.get("rule") or {}, evidence.get("end") or {}
    batch, noise, start = rule.get("batch_size"), end.get("scaled_noise"), _get(evidence, "start", "loss")
    if not batch or noise is None or start is None or end.get("loss") is None or evidence.get("failure"):
        return None
    rate = evidence["course"]["rate_last"]
    factor = 1 - rule["momentum"] if rule.get("name") in ("momentum", "nesterov") else 1.0
    cost = rate / factor * noise / (4 * batch)
    progress = start - end["loss"] + cost
    if not cost > NOISE_COST * abs(progress):
        return None
    scale = end.get("noise_scale")
    of = f"the noise scale is {scale:,.0f} rows" if scale else "the gradient can't be told from noise"
    return _finding(
        "noise_dominated",
        "warning",
        f"Noise costs about {cost:.3g} of loss, {cost / progress:.0%} of all that was won: {of}, a batch has "
        f"{batch:,}.",
        f"batches of {batch:,} rows at a rate of {rate:g}",
        f"--batch-size {8 * batch}, or --schedule cosine",
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
    useful = (_get(evidence, "skill", "validation") or 0.0) > NO_SKILL
    return _finding(
        "class_never_predicted",
        "information" if useful else "warning",
        f"{rows:,} of {sum(true):,} held-out rows are {names}, and none is predicted to be.",
        f"class {names}",
        "--class-weight balanced",
    )


def dead_units(evidence: Evidence) -> Finding | None:
    """Many units of a layer are zero, or saturated, for every row."""
    for layer in _get(evidence, "end", "layers") or []:
        for kind, says in (("dead", "zero for every row"), ("saturated", "at their bounds for every row")):
            share = layer.get(kind)
            if share is not None and share >= DEAD:
                return _finding(
                    "dead_units",
                    "error" if share == 1 else "warning",
                    f"{share:.0%} of {layer['units']} units are {says}: no gradient passes them.",
                    layer["layer"],
                    f"--learning-rate {_rounded(evidence['course']['rate_highest'] / 10)}, or --activation gelu",
                )
    return None


def _gradient_ratios(evidence: Evidence) -> list[tuple[str, str, float]]:
    """Return for start and end: when, the first layer's name, its gradient's norm over the last one's."""
    ratios = []
    for when in ("start", "end"):
        layers = _get(evidence, when, "layers") or []
        if len(layers) > 2 and not dead_units(evidence):
            first, last = layers[0]["gradient_norm"], layers[-1]["gradient_norm"]
            if first is not None and last:
                ratios.append((when, layers[0]["layer"], first / last))
    return ratios


def vanishing_gradient(evidence: Evidence) -> Finding | None:
    """Next to nothing of the gradient reaches the first layer."""
    for when, layer, ratio in _gradient_ratios(evidence):
        if ratio < FADED:
            return _finding(
                "vanishing_gradient",
                "warning",
                f"The gradient of the first layer has {ratio:.2g} times the norm of the last one's.",
                f"{layer}, at the {when}",
                "--activation relu, or fewer --hidden layers",
            )
    return None


def exploding_gradient(evidence: Evidence) -> Finding | None:
    """The gradient grows on its way to the first layer."""
    for when, layer, ratio in _gradient_ratios(evidence):
        if ratio > 1 / FADED:
            return _finding(
                "exploding_gradient",
                "warning",
                f"The gradient of the first layer has {ratio:.2g} times the norm of the last one's.",
                f"{layer}, at the {when}",
                "--clip-norm 1",
            )
    return None


def leaking_column(evidence: Evidence) -> Finding | None:
    """One column alone predicts nearly everything."""
    columns = evidence.get("columns") or {}
    alone = [name for name, skill in columns.items() if skill >= ALONE]
    if len(columns) < 2 or not alone:
        return None
    named = ", ".join(f"{name!r} {columns[name]:.1%}" for name in alone[:5])
    return _finding(
        "leaking_column",
        "warning",
        f"Alone, one column explains nearly all of the held-out target: {named}. Is it known before the target is?",
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
    return _finding("target_scale", "warning", f"{says}.", "the target", advice)


def no_signal(evidence: Evidence) -> Finding | None:
    """Neither the model nor trees predict held-out rows better than the mean does."""
    model, trees, error = (_get(evidence, "skill", name) for name in ("validation", "trees", "error"))
    if model is None or trees is None:
        return None
    if max(model, trees) > max(NO_SKILL, 2 * (error or 0.0)):
        return None
    return _finding(
        "no_signal",
        "warning",
        f"The model explains {model:.1%} of the held-out target, small boosted trees {trees:.1%} "
        f"(± {error or 0.0:.1%}).",
        "all columns",
        "other columns: nothing in these tells the target from its mean",
    )


RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    diverged,
    rate_too_high,
    rate_too_low,
    edge_of_stability,
    ill_conditioned,
    plateau,
    overfitting,
    underfitting,
    noise_dominated,
    class_never_predicted,
    dead_units,
    vanishing_gradient,
    exploding_gradient,
    leaking_column,
    target_scale,
    no_signal,
)
"""Every rule; each is called as its finding is."""
