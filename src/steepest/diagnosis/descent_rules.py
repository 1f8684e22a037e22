"""Rules on how a descent went: each gives one finding or none, and is called as its finding is."""

from __future__ import annotations

import math

import numpy as np

from steepest.diagnosis.course import BLOCKS
from steepest.diagnosis.verdicts import (
    LEFT,
    SURE,
    WORSE,
    Evidence,
    Finding,
    effective,
    finding,
    get,
    loss_at,
    lower_rate,
    rounded,
)

SHARE_WORSE = 0.05
"""Share of the first loss by which the last may be above it on the same rows, but for chance."""

ROSE = 0.2
"""Share of what was won that may be lost again: less than that is an ordinary descent's last noise."""

AT_EDGE = 0.95
"""Part of the limit from which on a rate is at it: the curvature is of a sample."""

FAR_BELOW = 50.0
"""Times below ``1 / curvature`` from which a rate is low: noise of small batches can ask for a twentieth."""

NOISE_COST, NOISE_GAIN = 0.02, 0.05
"""Share of the loss that noise may cost by the formula, and that steps without it may be seen to win."""

ILL = 1e3
"""Condition number from which on it matters: scaled tables of independent columns lie below 100."""

STILL_TO_FALL = 0.4
"""Share of all progress that comes after a plateau: a descent that slows down has less left."""

FLAT, FLAT_BLOCKS = 0.02, 6
"""Blocks that differ by this share of all progress, and by chance, are flat; 30% of them are a plateau."""

MOST_EPOCHS_BY_HEART = 5
"""Epochs up to which a fall can be told to be where one begins."""

DEAD = 0.4
"""Share of a layer's units: He's start loses a few in a hundred, and each layer can spare some."""

FADED = 1e-3
"""What may be left of a signal on its way back to the first layer: usual starts keep about all."""


def diverged(evidence: Evidence) -> Finding | None:
    """A step was not finite."""
    failure = evidence.get("failure")
    if not failure:
        return None
    rate, limit = failure["learning_rate"], get(evidence, "end", "limit_rate")
    above = (
        f", {rate / limit:.3g} times the largest stable one ({limit:.3g})" if limit and rate > limit else ""
    )
    losses = evidence["course"]["losses"]
    went = f"; before that the loss went from {losses[0]:.4g} to {losses[-1]:.4g}" if len(losses) > 1 else ""
    layer = f", {failure['layer']}" if failure.get("layer") else ""
    rows = failure.get("places") or [f"row {row}" for row in failure.get("rows", [])]
    named = f"; {', '.join(rows[:3])}{' ...' if len(rows) > 3 else ''}" if rows else ""
    return finding(
        "diverged",
        "error",
        f"The loss or its gradient was not finite at a learning rate of {rate:g}{above}{went}.",
        f"step {failure['step']:,} (epoch {failure['epoch']}){layer}{named}",
        f"--learning-rate {lower_rate(evidence, rate)}",
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
    start, end = get(evidence, "start", "loss"), get(evidence, "end", "loss")
    worse = start is not None and end is not None and end > start + SHARE_WORSE * abs(start)
    if not (rose or worse):
        return None
    rate, limit = went["rate_last"], get(evidence, "end", "limit_rate")
    against = f" The rate, {rate:g}, is {rate / limit:.3g} times the largest stable one." if limit else ""
    first, last = (losses[lowest], losses[-1]) if rose else (start, end)
    return finding(
        "rate_too_high",
        "warning",
        f"The training loss rose from {first:.4g} to {last:.4g}.{against}",
        f"from step {went['first_steps'][lowest]:,} on" if rose else "between the start and the end",
        f"--learning-rate {lower_rate(evidence, rate)}",
    )


def rate_too_low(evidence: Evidence) -> Finding | None:
    """Steps are far shorter than ``1 / curvature``, and such steps would gain much."""
    rate, curvature = get(evidence, "course", "rate_highest"), get(evidence, "end", "curvature")
    losses, ahead = loss_at(evidence), get(evidence, "end", "ahead")
    if not rate or not curvature or curvature < 0 or losses is None or ahead is None:
        return None
    (start, end), slower = losses, 1 / (curvature * effective(evidence, rate))
    if slower < FAR_BELOW or not end - ahead > LEFT * (start - ahead) > 0 or noise_dominated(evidence):
        return None
    return finding(
        "rate_too_low",
        "warning",
        f"The descent is about {slower:.2g} times slower than it could be: the largest curvature is "
        f"{curvature:.3g}, and a few more steps at the rate it allows take the loss from {end:.4g} to "
        f"{ahead:.4g}.",
        f"a learning rate of {rate:g}",
        f"--learning-rate {rounded(rate * min(100, slower / 4))}",
    )


def edge_of_stability(evidence: Evidence) -> Finding | None:
    """The curvature is at its limit, and the descent improves all the same."""
    rate, limit = get(evidence, "course", "rate_last"), get(evidence, "end", "limit_rate")
    start, end = get(evidence, "start", "loss"), get(evidence, "end", "loss")
    if evidence.get("failure") or not rate or not limit or start is None or end is None:
        return None
    if rate < AT_EDGE * limit or end >= start or rate_too_high(evidence):
        return None
    return finding(
        "edge_of_stability",
        "information",
        f"The largest curvature, {evidence['end']['curvature']:.4g}, is {rate / limit:.3g} times what the "
        f"rule follows at a rate of {rate:g}; the loss fell from {start:.4g} to {end:.4g} nevertheless.",
        "at the end",
        "nothing: networks hover at this edge and improve. A smoother descent has a lower --learning-rate",
    )


def ill_conditioned(evidence: Evidence) -> Finding | None:
    """The inputs ask for more steps than there were, and the loss is still falling."""
    condition, went = get(evidence, "inputs", "condition"), evidence["course"]
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
    return finding(
        "ill_conditioned",
        "warning",
        f"The inputs' condition number is {condition:.2g}: descent takes about {needed:,.0f} steps for each "
        f"digit, and took {went['steps']:,}. The loss is still falling.",
        f"columns {smallest} (smallest direction), {largest} (largest)",
        f"--drop {evidence['inputs']['smallest_columns'][0]!r}, or --optimizer adam",
    )


def plateau(evidence: Evidence) -> Finding | None:
    """The loss stood still for long before it fell further."""
    went = evidence["course"]
    losses = np.asarray(went["losses"])
    if len(losses) < BLOCKS:
        return None
    progress = losses[0] - losses.min()
    if progress < SURE * (went["errors"][0] + went["errors"][-1]):
        return None
    longest, first = 0, 0
    for begin, error in enumerate(went["errors"]):
        near = abs(losses[begin:] - losses[begin]) < FLAT * progress + 2 * error
        length = int(near.argmin())  # 0 where the loss stands still to the end, which is no plateau
        if length > longest and losses[begin] - losses[-1] > STILL_TO_FALL * progress:
            longest, first = length, begin
    # A descent that only slows down falls fastest before it stands still.
    fastest = int(np.argmin(np.diff(losses)))
    if longest < FLAT_BLOCKS or fastest < first + longest - 2 or _by_heart(evidence, fastest):
        return None
    begins, ends = went["first_steps"][first], went["first_steps"][first + longest] - 1
    return finding(
        "plateau",
        "warning",
        f"The loss stood still near {losses[first]:.4g} for {longest / BLOCKS:.0%} of the steps before it "
        f"fell to {losses[-1]:.4g}.",
        f"steps {begins:,} to {ends:,}",
        f"--learning-rate {rounded(3 * went['rate_highest'])}, or --optimizer adam",
    )


def _by_heart(evidence: Evidence, fastest: int) -> bool:
    """Tell whether the loss fell where an epoch began: with many sparse features rows are learned by heart.

    Fits with sparse features are those whose inputs are not examined.
    """
    went = evidence["course"]
    if "inputs" in evidence or not 2 <= went["epochs"] <= MOST_EPOCHS_BY_HEART:
        return False
    epoch, begins = went["steps"] / went["epochs"], went["first_steps"]
    last = begins[fastest + 2] if fastest + 2 < len(begins) else went["steps"]
    return bool(math.ceil((begins[fastest] - 1) / epoch) * epoch < last)


def noise_dominated(evidence: Evidence) -> Finding | None:
    """The noise of small batches costs much, and steps without it would win that back.

    At a constant rate η with batches of B rows a descent ends ``η tr(PΣ) / 4B`` above its minimum; with
    momentum, ``η / (1 - β)`` takes the place of η. Source: S. Mandt et al., *Stochastic Gradient Descent as
    Approximate Bayesian Inference*, 2017, section 3.
    """
    rule, end = evidence.get("rule") or {}, evidence.get("end") or {}
    batch, noise, ahead = rule.get("batch_size"), end.get("scaled_noise"), end.get("ahead")
    loss = end.get("held_out_loss")
    if not batch or noise is None or ahead is None or loss is None or evidence.get("failure"):
        return None
    rate = evidence["course"]["rate_last"]
    cost = effective(evidence, rate) * noise / (4 * batch)
    gain = loss - ahead
    if cost < NOISE_COST * abs(loss) or gain < NOISE_GAIN * abs(loss) or rate_too_high(evidence):
        return None
    losses = loss_at(evidence)
    if losses and gain < WORSE * (losses[0] - ahead):
        return None
    scale = end.get("noise_scale")
    of = f"The noise scale is {scale:,.0f} rows" if scale else "The gradient can't be told from noise"
    return finding(
        "noise_dominated",
        "warning",
        f"{of}, a batch has {batch:,}: noise costs about {cost:.3g} of a loss of {loss:.4g}, which a few "
        f"steps without noise take to {ahead:.4g}.",
        f"batches of {batch:,} rows at a rate of {rate:g}",
        f"--batch-size {8 * batch}, or --schedule cosine",
    )


def dead_units(evidence: Evidence) -> Finding | None:
    """Many units of a layer are zero, or saturated, for every row."""
    if evidence.get("failure"):
        return None
    highest = evidence["course"]["rate_highest"]
    for layer in get(evidence, "end", "layers") or []:
        for kind, says in (("dead", "zero for every row"), ("saturated", "at their bounds for every row")):
            share = layer.get(kind)
            if share is not None and share >= DEAD:
                return finding(
                    "dead_units",
                    "error" if share == 1 else "warning",
                    f"{share:.0%} of {layer['units']} units are {says}: no gradient passes them.",
                    layer["layer"],
                    f"--learning-rate {rounded(highest / 10)}, or --activation gelu",
                )
    return None


def _reaching_back(evidence: Evidence) -> tuple[str, float] | None:
    """Return the first layer's name, and what reaches it of a change of the outputs, at the start."""
    layers = get(evidence, "start", "layers") or []
    if len(layers) < 2 or layers[0].get("backward") is None or dead_units(evidence):
        return None
    return layers[0]["layer"], layers[0]["backward"]


def vanishing_gradient(evidence: Evidence) -> Finding | None:
    """Next to nothing of the gradient reaches the first layer."""
    reaches = _reaching_back(evidence)
    if reaches is None or reaches[1] > FADED:
        return None
    return finding(
        "vanishing_gradient",
        "warning",
        f"A change of the outputs is {reaches[1]:.2g} times as large where it reaches the first layer.",
        f"{reaches[0]}, at the start",
        "fewer --hidden layers, or --activation relu",
    )


def exploding_gradient(evidence: Evidence) -> Finding | None:
    """The gradient grows on its way to the first layer."""
    reaches = _reaching_back(evidence)
    if reaches is None or reaches[1] < 1 / FADED:
        return None
    return finding(
        "exploding_gradient",
        "warning",
        f"A change of the outputs is {reaches[1]:.2g} times as large where it reaches the first layer.",
        f"{reaches[0]}, at the start",
        "--clip-norm 1, or fewer --hidden layers",
    )
