"""The column plan as ONNX' operators: what `steepest.data.encode` does with NumPy, node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from steepest.data.column import Column
from steepest.data.encode import DAYS_PER_YEAR
from steepest.data.summary import DAY
from steepest.export.graph import Graph
from steepest.export.inputs import MICROSECONDS, column_input

CYCLE = 146_097
"""Days of 400 years, after which the calendar repeats."""

MARCH = 719_468
"""Days from 1 March of the year 0 to 1970."""

Parts = Iterable[str]
"""float32 ``[rows, features]``, side by side."""


def features(graph: Graph, column: Column) -> list[str]:
    """Add what makes the dense features of a column whose input is declared.

    Returns
    -------
    list of str
        Values, float32 ``[rows, features]``, in the order of `steepest.data.encode.feature_names`.
    """
    parts = [] if column.sparse else [*KINDS[column.kind](graph, column)]
    return [*parts, graph.cast(_missing(graph, column), "float")] if column.missing else parts


def place(graph: Graph, column: Column) -> str:
    """Add what finds the place of a category's value, int64 ``[rows]``: the number of places is none."""
    none = len(column.values) + column.other
    # Where there is no feature for what is missing, that is one of the other values.
    of_missing = none if column.missing else len(column.values)
    codes = graph.add(
        "LabelEncoder",
        column.name,
        domain="ai.onnx.ml",
        keys_strings=[*column.values, column_input(column).missing],
        values_int64s=[*range(len(column.values)), of_missing],
        default_int64=len(column.values),
    )
    return graph.add("Reshape", codes, np.array([-1]))


def _missing(graph: Graph, column: Column) -> str:
    """Add whether a value is missing, bool ``[rows, 1]``."""
    kind = column_input(column)
    if kind.type == "double":
        return graph.add("IsNaN", column.name)
    like = object if kind.type == "string" else np.int64
    return graph.add("Equal", column.name, np.array([kind.missing], like))


def _number(graph: Graph, column: Column) -> Parts:
    yield _standardised(graph, column, column.name, _missing(graph, column))


def _standardised(graph: Graph, column: Column, values: str, missing: str) -> str:
    """Add (x − mean) / deviation in double precision, as the plan has it; 0 where x is missing."""
    centred = graph.add("Add", values, np.array(0.0 - column.mean))
    scaled = graph.add("Div", centred, np.array(column.deviation))
    return graph.cast(graph.add("Where", missing, np.array(0.0), scaled), "float")


def _boolean(graph: Graph, column: Column) -> Parts:
    filled = graph.add("Where", _missing(graph, column), np.array(column.mean), column.name)
    yield graph.cast(filled, "float")


def _category(graph: Graph, column: Column) -> Parts:
    yield _one_hot(graph, place(graph, column), len(column.values) + column.other)


def _one_hot(graph: Graph, codes: str, width: int) -> str:
    """Add 0/1 features ``[rows, width]``; a code of ``width`` sets none."""
    return graph.add("OneHot", codes, np.array(width), np.array([0, 1], np.float32))


def _time(graph: Graph, column: Column) -> Parts:
    missing = _missing(graph, column)
    times = graph.add("Where", missing, np.array(0), column.name)
    for part in column.parts:
        yield from PARTS[part](graph, column, times, missing)


def _elapsed(graph: Graph, column: Column, times: str, missing: str) -> Parts:
    seconds = graph.add("Div", graph.cast(times, "double"), np.array(float(MICROSECONDS)))
    yield _standardised(graph, column, seconds, missing)


def _time_of_day(graph: Graph, _: Column, times: str, missing: str) -> Parts:
    within = graph.add("Mod", times, np.array(DAY * MICROSECONDS))
    yield from _circle(graph, within, float(DAY * MICROSECONDS), missing)


def _circle(graph: Graph, values: str, period: float, missing: str) -> Parts:
    """Add sin 2πt and cos 2πt, where t is a share of a period; 0 where it is missing."""
    turns = graph.add("Mul", graph.cast(values, "double"), np.array(2 * np.pi / period))
    for operator in ("Sin", "Cos"):
        yield graph.cast(graph.add("Where", missing, np.array(0.0), graph.add(operator, turns)), "float")


def _days(graph: Graph, times: str) -> str:
    """Add the days since 1970, int64 ``[rows, 1]``; of whole days, because division rounds towards 0."""
    within = graph.add("Mod", times, np.array(DAY * MICROSECONDS))
    return graph.add("Div", graph.add("Sub", times, within), np.array(DAY * MICROSECONDS))


def _weekday(graph: Graph, _: Column, times: str, missing: str) -> Parts:
    since = graph.add("Add", _days(graph, times), np.array(3))  # 1970 began on a Thursday
    day = graph.add("Where", missing, np.array(7), graph.add("Mod", since, np.array(7)))
    yield _one_hot(graph, graph.add("Reshape", day, np.array([-1])), 7)


def _time_of_year(graph: Graph, _: Column, times: str, missing: str) -> Parts:
    yield from _circle(graph, _day_of_year(graph, _days(graph, times)), DAYS_PER_YEAR, missing)


def _day_of_year(graph: Graph, days: str) -> str:
    """Add the day of the year, from 0, int64, in whole numbers.

    Years are counted from March, so that a leap day is a year's last: of the 400 years of a cycle the year is
    found, and the days before it are taken away.

    Source: H. Hinnant, *chrono-Compatible Low-Level Date Algorithms*, 2021.
    """

    def whole(operator: str, a: str, b: int) -> str:
        return graph.add(operator, a, np.array(b))

    def total(first: str, *terms: tuple[str, str]) -> str:
        for operator, term in terms:
            first = graph.add(operator, first, term)
        return first

    cycle = whole("Mod", whole("Add", days, MARCH), CYCLE)
    leaps = [("Sub", 1_460), ("Add", 36_524), ("Sub", 146_096)]
    without = total(cycle, *((sign, whole("Div", cycle, span)) for sign, span in leaps))
    year = whole("Div", without, 365)
    begins = total(whole("Mul", year, 365), ("Add", whole("Div", year, 4)), ("Sub", whole("Div", year, 100)))
    since_march = graph.add("Sub", cycle, begins)
    fourth, hundredth = (whole("Equal", whole("Mod", year, span), 0) for span in (4, 100))
    leap = graph.add(
        "Or", graph.add("And", fourth, graph.add("Not", hundredth)), whole("Equal", year, 0)
    )  # year 0 of a cycle is a multiple of 400
    before = graph.add("Where", leap, np.array(60), np.array(59))
    in_march = graph.add("Add", since_march, before)
    return graph.add("Where", whole("Less", since_march, 306), in_march, whole("Sub", since_march, 306))


KINDS: dict[str, Callable[[Graph, Column], Parts]] = {
    "number": _number,
    "boolean": _boolean,
    "category": _category,
    "time": _time,
    "missing": lambda *_: (),
}
"""Kind of a column of dense features -> what makes them."""

PARTS: dict[str, Callable[[Graph, Column, str, str], Parts]] = {
    "elapsed": _elapsed,
    "time of day": _time_of_day,
    "weekday": _weekday,
    "time of year": _time_of_year,
}
"""Name of a part of a time -> what makes its features."""
