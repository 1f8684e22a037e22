"""One column in plain figures: exact ones from its summary, and those that need rows from the sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column
from steepest.data.columns import Dropped
from steepest.data.counting import count
from steepest.data.deciding import LONG_TEXT
from steepest.data.sampling import MOST_CHARACTERS
from steepest.data.summary import Summary, numbers_of, plain_values
from steepest.exploration.relations import Bins, Floats, bin_categories, bin_numbers

NUMBERS = ("number", "integer", "boolean")
TIMES = ("timestamp", "date", "time")

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

HISTOGRAM_BINS = 30

MIDDLE = 0.99
"""The share of the values that a histogram shows; it counts the others below and above."""

MOST_SHOWN = 10
"""Values of a category that are listed."""

FEWEST_IN_ORDER = 20
"""Different values that a column must have to be called sorted."""


def describe(
    name: str, summary: Summary, decided: Column | Dropped, sample: pa.ChunkedArray
) -> dict[str, Any]:
    """Describe a column in JSON types.

    Parameters
    ----------
    name
        The column's name.
    summary
        The summary of all rows.
    decided
        What becomes of it in a fit.
    sample
        Its values in the sample, `steepest.data.summary.plain_values` without infinite ones.

    Returns
    -------
    dict
        ``name``, ``type``, ``kind`` (see `kind_of`), ``unused`` (why a fit leaves it out, or None). Of all
        rows: ``missing``, ``infinite``, ``different`` (None where they are too many to count), ``minimum``,
        ``maximum``, ``mean``, ``deviation``. Of the sample: ``quantiles``, ``skewness``,
        ``skewness_of_logarithm``, ``histogram``, ``order`` (``"rising"``, ``"falling"`` or None) and
        ``different_in_sample`` (a share). ``top``, the most frequent values: of all rows where these are
        counted. What makes no sense for its type is None.
    """
    described: dict[str, Any] = {
        "name": name,
        "type": summary.type,
        "kind": kind_of(summary, decided),
        "unused": decided.reason if isinstance(decided, Dropped) else None,
        "missing": summary.missing,
        "infinite": summary.infinite,
        "different": None if summary.counted is None else len(summary.counted),
        **_bounds(summary),
        **dict.fromkeys(("quantiles", "skewness", "skewness_of_logarithm", "histogram", "order", "top")),
        "different_in_sample": None,
    }
    if summary.type == "unsupported" or summary.missing == summary.rows:
        return described
    present = sample.drop_null()
    if len(present):
        described["different_in_sample"] = pc.count_distinct(present).as_py() / len(present)
    if summary.type in ("string", "boolean"):
        described["top"] = _top(summary, present)
    elif len(present):
        described |= _distribution(numbers_of(present), summary.type)
    return described


def kind_of(summary: Summary, decided: Column | Dropped) -> str:
    """Return what a column seems to be.

    ``"number"``, ``"boolean"``, ``"category"`` and ``"time"`` are learned from; ``"empty"``, ``"constant"``,
    ``"text"``, ``"identifier"``, ``"unsupported"`` and ``"rare"`` (values that occur too seldom) are not;
    ``"missing"`` says only whether there is a value.
    """
    if isinstance(decided, Column):
        return decided.kind
    if summary.missing == summary.rows:
        return "empty"
    if summary.type == "unsupported":
        return "unsupported"
    if summary.minimum == summary.maximum:
        return "constant"
    if summary.type == "string":
        long = summary.characters > LONG_TEXT * (summary.rows - summary.missing)
        return "text" if long else "identifier" if "different values" in decided.reason else "rare"
    return "identifier" if summary.type == "integer" else "rare"


def bins_of(summary: Summary, values: pa.ChunkedArray, most: int) -> Bins:
    """Return a column of the sample in bins, of which there are to be at most so many for values."""
    if summary.type in NUMBERS or summary.type in TIMES:
        return bin_numbers(numbers_of(values), most)
    return bin_categories(values, most)


def skewness(values: Floats) -> float:
    """Return the third standardised moment, Σ (x − mean)³ / (n deviation³).

    Examples
    --------
    >>> round(skewness(np.array([0.0, 0.0, 0.0, 1.0])), 4)
    1.1547
    """
    deviation = values - values.mean()
    spread = math.sqrt(float((deviation**2).mean()))
    return float(((deviation / spread) ** 3).mean()) if spread > 0 else 0.0


def histogram(values: Floats, whole: bool) -> dict[str, Any]:
    """Count values in bins of equal width, those of whole numbers around them.

    Returns
    -------
    dict
        ``edges`` (one more than bins), ``rows`` of each bin, ``below`` and ``above``: rows beyond the edges.

    Examples
    --------
    >>> histogram(np.array([1.0, 2.0, 2.0, 3.0]), whole=True)
    {'edges': [0.5, 1.5, 2.5, 3.5], 'rows': [1, 2, 1], 'below': 0, 'above': 0}
    """
    low, high = np.quantile(values, [(1 - MIDDLE) / 2, (1 + MIDDLE) / 2], method="nearest")
    if whole:
        width = max(1, math.ceil((high - low + 1) / HISTOGRAM_BINS))
        edges = low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    else:
        edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
        edges = edges if edges[0] < edges[1] else np.array([low - 0.5, low + 0.5])
    rows = np.histogram(values, edges)[0]
    below, above = int((values < edges[0]).sum()), int((values > edges[-1]).sum())
    return {"edges": edges.tolist(), "rows": rows.tolist(), "below": below, "above": above}


def _bounds(summary: Summary) -> dict[str, Any]:
    """Return bounds, mean and deviation; times as a person writes them."""
    present = summary.rows - summary.missing - summary.infinite
    found: dict[str, Any] = dict.fromkeys(("minimum", "maximum", "mean", "deviation"))
    if summary.type in NUMBERS and summary.mean is not None:
        squares = summary.squared_deviation or 0.0
        found |= {"minimum": summary.minimum, "maximum": summary.maximum}
        if math.isfinite(summary.mean) and math.isfinite(squares):
            found |= {"mean": summary.mean, "deviation": math.sqrt(squares / present)}
    elif summary.type in TIMES and summary.minimum is not None:
        found |= {name: written(getattr(summary, name), summary.type) for name in ("minimum", "maximum")}
    return found


def written(seconds: float, kind: str) -> str:
    """Write a time as a person does.

    Examples
    --------
    >>> written(86_400, "date"), written(3_660, "time"), written(0, "timestamp")
    ('1970-01-02', '01:01:00', '1970-01-01 00:00:00')
    """
    date, time = str(np.datetime64(int(seconds), "s")).split("T")
    return {"timestamp": f"{date} {time}", "date": date, "time": time}[kind]


def _top(summary: Summary, present: pa.ChunkedArray) -> list[dict[str, Any]]:
    """Return the most frequent values and their share of those that are there."""
    counted = count(present) if summary.counted is None else summary.counted
    counts = counted.field(1).to_numpy()
    order = np.argsort(-counts, kind="stable")[:MOST_SHOWN]
    values = counted.field(0).take(pa.array(order)).to_pylist()
    whole = int(counts.sum())
    return [
        {
            "value": value[:MOST_CHARACTERS] if isinstance(value, str) else value,
            "share": int(counts[place]) / whole,
        }
        for value, place in zip(values, order, strict=True)
    ]


def _distribution(values: Floats, kind: str) -> dict[str, Any]:
    """Return what the sampled values say of a number's or a time's distribution."""
    steps = np.diff(values)
    found: dict[str, Any] = {"histogram": histogram(values, kind == "integer"), "order": None}
    if len(np.unique(values)) >= FEWEST_IN_ORDER:
        found["order"] = "rising" if (steps >= 0).all() else "falling" if (steps <= 0).all() else None
    if kind in TIMES:
        return found
    quantiles = np.quantile(values, QUANTILES)
    found["quantiles"] = {
        f"{share:.0%}": float(each) for share, each in zip(QUANTILES, quantiles, strict=True)
    }
    found["skewness"] = skewness(values)
    if values.min() >= 0:
        logarithms = np.log(values) if values.min() > 0 else np.log1p(values)
        found["skewness_of_logarithm"] = skewness(logarithms)
    return found


def without_infinities(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of `plain_values`, with infinite ones missing."""
    plain = plain_values(column)
    if not pa.types.is_floating(plain.type):
        return plain
    return pc.if_else(pc.is_inf(plain), pa.scalar(None, plain.type), plain)
