"""What every rule over evidence has in common: see `steepest.diagnosis.findings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Evidence = Mapping[str, Any]
Finding = dict[str, str]

SURE = 4.0
"""Standard errors beyond which a difference of mean losses is no accident."""

LEFT = 0.1
"""Share of all progress that a descent must have left open before its speed is worth a word."""

WORSE = 0.02
"""Share of the best held-out loss by which the last may be above it: less is chance."""


def finding(name: str, severity: str, evidence: str, where: str, advice: str) -> Finding:
    """Return a finding; ``advice`` is the one thing to try."""
    return {"finding": name, "severity": severity, "evidence": evidence, "where": where, "try": advice}


def get(evidence: Evidence, *path: str) -> Any:
    """Return what is at the end of a path, or ``None`` where a part is missing."""
    here: Any = evidence
    for name in path:
        here = here.get(name) if isinstance(here, Mapping) else None
    return here


def rounded(rate: float) -> str:
    """Return a rate with one digit, as a person would choose it.

    Examples
    --------
    >>> rounded(0.0349), rounded(12.0)
    ('0.03', '10')
    """
    return f"{float(f'{rate:.0e}'):g}"


def loss_at(evidence: Evidence) -> tuple[float, float] | None:
    """Return the sample's loss at the start and at the end, on held-out rows where there are some."""
    for name in ("held_out_loss", "loss"):
        start, end = get(evidence, "start", name), get(evidence, "end", name)
        if start is not None and end is not None:
            return start, end
    return None


def lower_rate(evidence: Evidence, rate: float) -> str:
    """Return a rate to try instead of one that was too high."""
    limit = get(evidence, "end", "limit_rate")
    return rounded(limit / 2 if limit and limit < rate else rate / 10)


def effective(evidence: Evidence, rate: float) -> float:
    """Return the rate of plain descent that goes as far: velocity adds ``1 / (1 - β)`` steps up."""
    rule = evidence.get("rule") or {}
    return rate / (1 - rule["momentum"]) if rule.get("name") in ("momentum", "nesterov") else rate
