"""Findings: verdicts on a descent by pure rules over plain evidence.

Evidence is a dict of JSON types, which `steepest.diagnosis.examination` makes and a run stores; every part
but ``course`` may be missing, which silences the rules that need it:

=============  ==================================================================================
``course``     how the loss went: `steepest.diagnosis.course.course`
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

from collections.abc import Callable

from steepest.diagnosis.descent_rules import (
    dead_units,
    diverged,
    edge_of_stability,
    exploding_gradient,
    ill_conditioned,
    noise_dominated,
    plateau,
    rate_too_high,
    rate_too_low,
    vanishing_gradient,
)
from steepest.diagnosis.model_rules import (
    class_never_predicted,
    leaking_column,
    no_signal,
    overfitting,
    target_scale,
    underfitting,
)
from steepest.diagnosis.verdicts import Evidence, Finding


def findings(evidence: Evidence) -> list[Finding]:
    """Return what the evidence says, errors first, in the order of the rules.

    Returns
    -------
    list of dict
        ``{"finding", "severity", "evidence", "where", "try"}``, all text; the severity is ``"error"``,
        ``"warning"`` or ``"information"``.

    Examples
    --------
    >>> course = {"steps": 7, "epochs": 1, "losses": [1.0, 9.0], "errors": [0.0, 0.0],
    ...           "rate_highest": 3.0, "rate_last": 3.0, "validation": None}
    >>> failure = {"step": 7, "epoch": 1, "learning_rate": 3.0}
    >>> [each["finding"] for each in findings({"course": course, "failure": failure})]
    ['diverged']
    """
    found = [each for rule in RULES for each in [rule(evidence)] if each]
    order = ("error", "warning", "information")
    return sorted(found, key=lambda each: order.index(each["severity"]))


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
