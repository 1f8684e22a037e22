"""The variants of a descent that are compared: which settings they may differ in, and how they are named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from steepest.combining import KINDS, checked
from steepest.errors import SteepestError, nearest
from steepest.settings import NAMES, Settings

MAY_DIFFER = (
    *("optimizer", "learning_rate", "schedule", "batch_size", "epochs", "clip_norm", "l1", "l2", "dropout"),
    *("tolerance", "patience", "monitor", "on_divergence"),
)
"""Settings of the descent: what is descended on, where it starts, and the rows stay the same."""

MOST = 8
"""Variants that a figure can tell apart."""

DEFAULT: tuple[dict[str, Any], ...] = ({"batch_size": "all"}, {"batch_size": 32}, {"batch_size": 1})
"""Batch, mini-batch and stochastic descent."""

Variant = Mapping[str, Any]


def read_variant(text: str) -> dict[str, Any]:
    """Return the settings that a variant is written as.

    Raises
    ------
    SteepestError
        If it is no list of settings.

    Examples
    --------
    >>> read_variant("batch_size=all, optimizer=sgd,learning-rate=0.1")
    {'batch_size': 'all', 'optimizer': 'sgd', 'learning_rate': 0.1}
    """
    variant: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        name = name.replace("-", "_")
        if not (name and equals and value):
            raise SteepestError(
                f"The variant {text!r} is no list of settings.",
                hint='Write it as NAME=VALUE,NAME=VALUE: --variants "batch_size=32,optimizer=sgd".',
            )
        if name in variant:
            raise SteepestError(f"The variant {text!r} sets {name} twice.")
        variant[name] = _value(name, value)
    return variant


def _value(name: str, text: str) -> Any:
    """Return what a setting is given as, of the first of its kinds that the text is."""
    kinds = KINDS.get(name, (str,))
    if int in kinds and re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if float in kinds:
        try:
            return float(text)
        except ValueError:
            pass
    return text


def name_of(variant: Variant) -> str:
    """Return what tells a variant from the others.

    Examples
    --------
    >>> name_of({"batch_size": "all"}), name_of({"optimizer": "sgd", "learning_rate": 0.1})
    ('batch size all', 'optimizer sgd, learning rate 0.1')
    """
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in variant.items()
    ).replace("_", " ")


def planned(settings: Settings, variants: Sequence[Variant]) -> dict[str, Settings]:
    """Return the settings of each variant, by its name.

    Raises
    ------
    SteepestError
        If one sets what may not differ, two are the same, or they are too few or too many.
    """
    variants = variants or DEFAULT
    plans: dict[str, Settings] = {}
    for variant in variants:
        _check_may_differ(variant)
        plan = replace(settings, **checked(dict(variant), "A variant sets"))
        if plan in plans.values():
            raise SteepestError(f"Two variants are the same: {name_of(variant)!r}.")
        plans[name_of(variant)] = plan
    if not 2 <= len(plans) <= MOST:
        raise SteepestError(f"From 2 to {MOST} variants can be compared, not {len(plans)}.")
    return plans


def _check_may_differ(names: Iterable[str]) -> None:
    for name in names:
        if name in NAMES and name not in MAY_DIFFER:
            raise SteepestError(
                f"Variants can't differ in {name}: they share the model, its start and the rows.",
                hint=nearest(name, MAY_DIFFER),
            )
