"""What is worth a remark in a table, as findings: pure rules over what an exploration recorded.

A finding is a dictionary: ``finding`` (an identifier), ``severity`` (``"error"``, ``"warning"`` or
``"information"``), ``evidence`` (in numbers), ``where``, and ``try`` (what to do about it).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
Findings = Iterator[dict[str, str]]

LEAK = 0.98
"""The signal from which on a column is suspected: nothing known beforehand tells nearly everything."""

CHANCE = 5.0
"""Standard deviations that a relation must be from independence to count as one."""

ALL_DIFFERENT = 0.95
"""The share of different values from which on whole numbers named so are taken for an identifier."""

IDENTIFYING = ("id", "key", "number", "no", "uuid", "guid")
"""How the last word of an identifier's name reads."""

MOSTLY_MISSING = 0.5

RARE, FEW_ROWS = 0.1, 10
"""The share below which a class is rare, and the rows below which it can hardly be learned."""

SKEWED, TAMED = 2.0, 0.5
"""The skewness that is worth a remark, and the part of it that may be left once logarithms are taken."""

LONG_VALLEY, MANY_STEPS = 1e4, 5_000
"""The condition number, after scaling, that is worth a remark, and the steps that are worth a warning."""

MOST_NAMED = 8

ORDER = ("error", "warning", "information")


def remarks(record: Record) -> list[dict[str, str]]:
    """Return what is worth a remark, the most severe first.

    Parameters
    ----------
    record
        What `steepest.explore` found, without its findings.
    """
    found = [each for rule in RULES for each in rule(record)]
    return sorted(found, key=lambda each: ORDER.index(each["severity"]))


def _finding(finding: str, severity: str, where: str, evidence: str, advice: str) -> dict[str, str]:
    return {"finding": finding, "severity": severity, "evidence": evidence, "where": where, "try": advice}


def _named(names: Iterable[str]) -> str:
    """Return columns as a place: the first of them by name."""
    listed = list(names)
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return f"column{'s' if len(listed) > 1 else ''} {', '.join(map(repr, listed[:MOST_NAMED]))}{more}"


def _dropping(names: Iterable[str]) -> str:
    return " ".join(f"--drop {shlex.quote(name)}" for name in names)


def _rows(record: Record) -> Findings:
    for left_out in record["data"]["left_out"]:
        share = left_out["rows"] / record["data"]["rows"]
        yield _finding(
            "rows_left_out",
            "information" if share < 0.1 else "warning",
            "rows",
            f"{left_out['rows']:,} of {record['data']['rows']:,} rows ({share:.1%}) can't be trained on: "
            f"{left_out['reason']}",
            "See whether these rows differ from the others; the model will know nothing of them.",
        )


def _infinite(record: Record) -> Findings:
    for column in record["columns"]:
        if column["infinite"]:
            yield _finding(
                "infinite_values",
                "error",
                _named([column["name"]]),
                f"{column['infinite']:,} infinite values; a fit refuses them",
                "Leave such cells empty (missing), or replace them by a number.",
            )


def _leaks(record: Record) -> Findings:
    target, score = record["target"]["name"], SCORES[record["target"]["score"]]
    for column in record["columns"]:
        if (column["signal"] or 0.0) >= LEAK and column["name"] not in record["data"]["lags"]:
            yield _finding(
                "leaking_column",
                "warning",
                _named([column["name"]]),
                f"alone it predicts {target!r} with {score} {column['score']:.4f} on held-out rows",
                f"Is it known before the target is? If not, leave it out: {_dropping([column['name']])}.",
            )


def _identifiers(record: Record) -> Findings:
    for column in record["columns"]:
        if column["kind"] == "identifier":
            yield _finding(
                "identifier_column",
                "information",
                _named([column["name"]]),
                column["unused"].rstrip("."),
                "Nothing: a fit leaves it out by itself.",
            )
        elif _looks_like_an_identifier(column):
            yield _finding(
                "identifier_column",
                "warning",
                _named([column["name"]]),
                f"{column['different_in_sample']:.1%} of its numbers differ; it is named like an identifier",
                f"If it names a row rather than measures it, leave it out: {_dropping([column['name']])}.",
            )


def _looks_like_an_identifier(column: Record) -> bool:
    words = "".join(letter if letter.isalnum() else " " for letter in column["name"].lower()).split()
    named = bool(words) and (words[-1] in IDENTIFYING or words[-1].endswith("id"))
    whole = column["type"] == "integer" and column["kind"] == "number"
    return whole and named and column["different_in_sample"] >= ALL_DIFFERENT


ADVICE = {
    "text": "Nothing: a fit learns from its words by itself.",
    "unsupported": "Take out of it what matters, such as its length, or leave it to a fit to leave it out.",
}
"""Kind of a column that is not looked at -> one thing to try."""


def _useless(record: Record) -> Findings:
    for kind, finding, evidence in (
        ("constant", "constant_column", "the same value in every row"),
        ("empty", "empty_column", "all values are missing"),
        ("text", "text_column", "long values that mostly differ: text, whose words are not looked at here"),
        ("unsupported", "unsupported_column", "nested or binary values, which are not looked at here"),
        ("rare", "rare_values", "values that differ too little, or are too rare each"),
    ):
        names = [column["name"] for column in record["columns"] if column["kind"] == kind]
        if names:
            yield _finding(
                finding,
                "information",
                _named(names),
                evidence,
                ADVICE.get(kind, "Nothing: a fit leaves it out by itself."),
            )


def _equal(record: Record) -> Findings:
    for group in record["equal"]:
        yield _finding(
            "duplicate_column",
            "information",
            _named(group),
            "the same value in every row",
            "Nothing: a fit uses the first of them only.",
        )


def _groups(record: Record) -> Findings:
    for group in record["associations"]["groups"]:
        yield _finding(
            "correlated_columns",
            "information",
            _named(group),
            f"{len(group)} columns that are linked by associations of 0.9 and more",
            "Weights of such columns can't be told apart; keep one of them, or use --select auto.",
        )


def _missing(record: Record) -> Findings:
    rows = record["sample"]["of"]
    mostly = [
        column
        for column in record["columns"]
        if rows * MOSTLY_MISSING <= column["missing"] < rows and column["unused"] is None
    ]
    if mostly:
        most = max(mostly, key=lambda column: column["missing"])
        yield _finding(
            "missing_values",
            "information",
            _named(column["name"] for column in mostly),
            f"half of the values and more are missing, in {most['name']!r} {most['missing'] / rows:.1%}",
            "A fit learns from whether they are missing, too; see that this is known when predicting.",
        )


def _sorted(record: Record) -> Findings:
    for column in record["columns"]:
        if column["order"] is not None:
            when = column["kind"] == "time"
            yield _finding(
                "sorted_rows",
                "information",
                _named([column["name"]]),
                f"the rows come sorted by it ({column['order']})",
                "If rows of one time are alike, hold whole times out: "
                f"--split-by {shlex.quote(column['name'])}, or judge by later rows: --validation FILE."
                if when
                else "Nothing: each epoch visits the rows in an order of its own.",
            )


def _skewed(record: Record) -> Findings:
    skewed = {
        column["name"]: column
        for column in record["columns"]
        if column["kind"] == "number"
        and abs(column["skewness"] or 0.0) > SKEWED
        and column["skewness_of_logarithm"] is not None
        and abs(column["skewness_of_logarithm"]) < TAMED * abs(column["skewness"])
    }
    if skewed:
        most = max(skewed.values(), key=lambda column: abs(column["skewness"]))
        yield _finding(
            "skewed_column",
            "information",
            _named(skewed),
            f"skewness above {SKEWED:g}; that of {most['name']!r} is {most['skewness']:.1f}, and "
            f"{abs(most['skewness_of_logarithm']):.1f} in size once logarithms are taken",
            "Take their logarithm before training: a few large values decide the weight otherwise.",
        )


def _target(record: Record) -> Findings:
    target = record["target"]
    where = f"target {target['name']!r}"
    if "rows" in target:
        yield from _imbalance(target, where)
        return
    if target["skewness"] > SKEWED and target["kind"] == "number":
        how = "Learn its logarithm" if target["minimum"] > 0 else "Use --loss huber"
        yield _finding(
            "skewed_target",
            "information",
            where,
            f"skewness {target['skewness']:.1f}: its mean is {target['mean']:.4g}, and it reaches "
            f"{target['maximum']:.4g}",
            f"{how}, so that a few large values don't decide it all; look at the mean absolute error, too.",
        )


def _imbalance(target: Record, where: str) -> Findings:
    rows, whole = target["rows"], sum(target["rows"])
    least = min(rows)
    binary = len(rows) == 2
    if least / whole < RARE / (1 if binary else len(rows) / 2):
        label = target["labels"][rows.index(least)]
        scores = "average precision and the area under the ROC curve" if binary else "the macro F1"
        yield _finding(
            "class_imbalance",
            "warning" if least < FEW_ROWS else "information",
            where,
            f"{label!r} is {least / whole:.2%} of the rows ({least:,}); always saying "
            f"{target['labels'][rows.index(max(rows))]!r} is right in {max(rows) / whole:.1%}",
            f"Trust {scores} rather than accuracy; --class-weight balanced makes classes count alike.",
        )


def _signal(record: Record) -> Findings:
    related = [column for column in record["columns"] if column["surprise"] is not None]
    if related and max(column["surprise"] for column in related) < CHANCE:
        best = max(related, key=lambda column: column["surprise"])
        yield _finding(
            "no_signal",
            "warning",
            f"target {record['target']['name']!r}",
            f"no column alone tells more of it than chance; the nearest is {best['name']!r}, "
            f"{best['surprise']:.1f} standard deviations from independence",
            "Look for other columns, or try whether several together tell something (--model mlp).",
        )


def _condition(record: Record) -> Findings:
    shape = record["conditioning"]
    if shape is None:
        return
    before, after = shape["before"], shape["after"]
    long = after["number"] > LONG_VALLEY
    yield _finding(
        "ill_conditioned" if long else "conditioning",
        "warning" if long and after["steps_to_learn"] > MANY_STEPS else "information",
        _named(after["along"]) if long else f"{shape['features']:,} features",
        f"the condition number is {before['number']:.3g} as the columns are and {after['number']:.3g} once "
        f"scaled, as a fit does; plain descent learns 90% in {steps(after['steps_to_learn'])} (unscaled: "
        f"{steps(before['steps_to_learn'])}), and takes {steps(after['steps'])} in the flattest direction",
        "Leave such a column out (--select auto), or use --optimizer adam or nesterov."
        if long
        else "Nothing: scaling is done by itself. Momentum needs about the square root of these steps.",
    )


def steps(number: float) -> str:
    """Write a number of steps as a person reads it.

    Examples
    --------
    >>> steps(1.0), steps(12.3), steps(123456.0), steps(2.5e11)
    ('1 step', '12 steps', '120,000 steps', '2.5e+11 steps')
    """
    written = f"{number:.2g}" if number >= 1e9 else f"{float(f'{number:.2g}'):,.0f}"
    return f"{written} step{'' if written == '1' else 's'}"


SCORES = {"auc": "an area under the ROC curve of", "accuracy": "an accuracy of", "r2": "an R² of"}

RULES: tuple[Callable[[Record], Findings], ...] = (
    _infinite,
    _leaks,
    _signal,
    _condition,
    _identifiers,
    _target,
    _rows,
    _missing,
    _groups,
    _equal,
    _useless,
    _skewed,
    _sorted,
)
