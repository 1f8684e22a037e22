"""`steepest.explain`: what each value of a row adds to a model's output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest import tasks
from steepest.attribution import Attribution, Entering, attribute
from steepest.data.column import Column
from steepest.data.encode import Locate, matching
from steepest.data.layout import Packed
from steepest.data.naming import held_of, names_of, values_of
from steepest.data.packed import packed_rows
from steepest.data.rows import RowSource, Stretch, settled
from steepest.data.sparse import ONE_A_ROW
from steepest.errors import SteepestError, nearest
from steepest.importance import groups_of
from steepest.prediction import open_rows, outputs_of, prediction_table
from steepest.run import Run, open_model
from steepest.tasks import Task

WEIGHTS, GRADIENTS = "weights times values", "integrated gradients"
"""How contributions are computed: of linear models, and of all others."""

FIRST_ROWS = 10
"""How many rows are explained where none are named."""


class Contribution(NamedTuple):
    """What one value adds to the output.

    Attributes
    ----------
    column
        The column.
    name
        The column's name, or for one of its words, list values or pairs that, "body: free".
    value
        The row's value in the column, or in the pair, ``None`` where it is missing; of words and list values
        their weight.
    contribution
        What it adds, in the unit of the output.
    """

    column: str
    name: str
    value: Any
    contribution: float

    @property
    def label(self) -> str:
        """What a person reads.

        Examples
        --------
        >>> Contribution("distance", "distance", 1400, 0.5).label, Contribution("day", "day", None, 0.1).label
        ('distance = 1,400', 'day is missing')
        >>> Contribution("body", "body: free", 0.31, 1.2).label
        'body: free'
        """
        if self.name != self.column:
            return self.name
        if self.value is None:
            return f"{self.name} is missing"
        if type(self.value) is int:
            return f"{self.name} = {self.value:,}"
        value = f"{self.value:,.6g}" if isinstance(self.value, float) else self.value
        return f"{self.name} = {value}"


@dataclass(frozen=True)
class Explanation:
    """What a prediction is made of: ``baseline`` and all contributions add up to ``output``.

    Parameters
    ----------
    row
        The row's number, from 0.
    prediction
        What is predicted: ``"prediction"``, and for classes the probability of each, by name.
    of
        What the output is, such as "log-odds of spam".
    output, baseline
        The model's output before its link, and that of a row whose numbers are the training rows' means
        and that has no category and no word. Where numbers are predicted, both are in the target's unit.
    contributions
        Each value's, the largest first, whatever its sign.
    how
        `WEIGHTS` or `GRADIENTS`.
    """

    row: int
    prediction: dict[str, Any]
    of: str
    output: float
    baseline: float
    contributions: tuple[Contribution, ...]
    how: str

    @cached_property
    def residual(self) -> float:
        """What the contributions miss of the output: rounding, where the model is linear."""
        return self.output - self.baseline - sum(each.contribution for each in self.contributions)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "residual": self.residual,
            "contributions": [
                {"name": each.name, "value": _plain(each.value), "contribution": each.contribution}
                for each in self.contributions
            ],
        }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times as text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def explain(
    run: Run | str | os.PathLike[str],
    data: Any,
    rows: Iterable[int] | None = None,
    label: str | None = None,
) -> list[Explanation]:
    """Tell what each value of a row adds to the output of a run's model.

    In a linear model that is exact: weight times value. In all others it is what integrated gradients give
    each value of the output's change from the baseline to the row; see `steepest.attribution.attribute`.

    Parameters
    ----------
    run
        A run or its folder.
    data
        Whatever `steepest.open_source` takes, with the columns of the training rows.
    rows
        Numbers of rows, from 0; by default the first 10, or as many as there are.
    label
        The class whose output is explained. By default, of two classes the last, whose probability is
        predicted; of several the predicted one.

    Returns
    -------
    list of Explanation
        One for each of ``rows``, in their order.

    Raises
    ------
    SteepestError
        If there is no such run, row or class, or the data can't be used.

    Examples
    --------
    >>> import tempfile, steepest
    >>> miles = [float(each) for each in range(100, 3100, 10)]
    >>> flights = {"distance": miles, "minutes": [20 + each / 8 for each in miles]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = steepest.fit(flights, "minutes", epochs=200, learning_rate=0.1, out=f"{folder}/run")
    ...     (found,) = steepest.explain(run, {"distance": [2400.0]})
    >>> round(found.baseline), round(found.output)
    (213, 320)
    >>> [(each.label, round(each.contribution)) for each in found.contributions]
    [('distance = 2,400', 107)]
    """
    opened = open_model(run)
    wanted = None if rows is None else list(rows)
    if wanted is not None and (not wanted or min(wanted) < 0):
        raise SteepestError("Rows are numbered from 0.", hint="Ask for one or more, such as 0,5,10 or 0-9.")
    explainer = _Explainer(opened, label)
    source = open_rows(opened.plan, data)
    return settled(source, lambda settled: _explained(explainer, settled, wanted))


def table_of(explanations: Sequence[Explanation]) -> pa.Table:
    """Return contributions as a table: row, name, value, contribution; the baseline is named "baseline".

    Examples
    --------
    >>> found = Explanation(7, {}, "minutes", 5.0, 3.0, (Contribution("day", "day", "Monday", 2.0),), WEIGHTS)
    >>> table_of([found]).to_pylist()[1]
    {'row': 7, 'name': 'day', 'value': 'Monday', 'contribution': 2.0}
    """
    lines = [
        (each.row, one.name, None if one.value is None else str(one.value), one.contribution)
        for each in explanations
        for one in (Contribution("", "baseline", None, each.baseline), *each.contributions)
    ]
    kinds = {"row": pa.int64(), "name": pa.string(), "value": pa.string(), "contribution": pa.float64()}
    columns = zip(*lines, strict=True) if lines else [[]] * len(kinds)
    return pa.table(
        {name: pa.array(column, kind) for (name, kind), column in zip(kinds.items(), columns, strict=True)}
    )


def _explained(explainer: _Explainer, source: RowSource, wanted: list[int] | None) -> list[Explanation]:
    numbers = np.arange(FIRST_ROWS) if wanted is None else np.unique(wanted)
    found = {
        each.row: each
        for rows, stretch in _taken(source, numbers)
        for each in explainer.explained(rows.tolist(), stretch.rows, stretch.locate)
    }
    missing = [] if wanted is None else [row for row in wanted if row not in found]
    if missing:
        raise SteepestError(
            f"There is no row {missing[0]:,}: rows are numbered from 0, and there are fewer.",
            hint="Ask for others.",
        )
    return [found[row] for row in (found if wanted is None else wanted)]


def _taken(
    source: RowSource, numbers: npt.NDArray[np.integer]
) -> Iterator[tuple[npt.NDArray[np.integer], Stretch]]:
    """Yield rows of these numbers, which rise, a stretch at a time; nothing is read beyond the last."""
    start = int(numbers[0])
    for stretch in source.stretches(first=start):
        stop = start + stretch.rows.num_rows
        here = numbers[(numbers >= start) & (numbers < stop)]
        if len(here):
            yield here, _chosen(stretch, here - start)
        start = stop
        if start > numbers[-1]:
            return


def _chosen(stretch: Stretch, rows: npt.NDArray[np.integer]) -> Stretch:
    return Stretch(stretch.rows.take(pa.array(rows)), lambda row: stretch.locate(int(rows[row])))


class _Explainer:
    """A run's model, its columns, and whose output is asked for."""

    def __init__(self, run: Run, label: str | None) -> None:
        self.run, self.task, self.plan = run, run.task, run.plan
        self.code = None if label is None else _code_of(run.task, label)
        self.groups = groups_of(run.plan)
        self.is_ours = "layer_1" in run.parameters
        self.how = WEIGHTS if self.is_ours and "layer_2" not in run.parameters else GRADIENTS
        if not self.is_ours and run.plan.layout.sparse:
            raise SteepestError(
                "Predictions of a Keras model with text, lists or large categories can't be explained.",
                hint="Fit --model linear or --model mlp on the same table.",
            )

    def explained(self, numbers: list[int], rows: pa.Table, locate: Locate) -> Iterator[Explanation]:
        """Yield the explanation of each row."""
        packed = self.plan.pack(rows, locate)
        features = packed_rows(self.plan.layout, packed)
        outputs = outputs_of(self.run.model, self.run.parameters, features)
        predicted = prediction_table(self.task, tasks.predictions(self.task, outputs)).to_pylist()
        held = {column.name: _held(column, rows, locate) for column in self.plan.columns}
        for place, row in enumerate(_entering(packed, features[:])):
            code, scale, shift = self._asked(outputs[place])
            output = code if self.task.kind == "classes" else 0
            # Keras computes in the precision of its own layers.
            found = attribute(self.run.model, self.run.parameters, row, output, double=self.is_ours)
            parts = [
                part._replace(contribution=part.contribution * scale)
                for column in self.plan.columns
                for part in self._parts(column, held[column.name][place], row, found)
            ]
            yield Explanation(
                numbers[place],
                predicted[place],
                _said(self.task, code),
                found.output * scale + shift,
                found.baseline * scale + shift,
                tuple(sorted(parts, key=lambda part: -abs(part.contribution))),
                self.how,
            )

    def _asked(self, outputs: npt.NDArray[Any]) -> tuple[int, float, float]:
        """Return the class that is explained, and what turns the model's output into its output."""
        task = self.task
        if task.kind == "binary":
            code = 1 if self.code is None else self.code
            return code, 1.0 if code else -1.0, 0.0
        if task.kind == "classes":
            return int(outputs.argmax()) if self.code is None else self.code, 1.0, 0.0
        return 0, task.deviation, task.center

    def _parts(self, column: Column, held: Any, row: Entering, found: Attribution) -> Iterator[Contribution]:
        """Yield what a column's values add: each word's or list value's, else the one value's."""
        name, group = column.name, self.groups[column.name]
        dense = float(found.dense[group.dense].sum())
        if group.list is None:
            category = 0.0 if group.category is None else float(found.categories[group.category])
            yield Contribution(name, name, held, dense + category)
            return
        if row.dense[group.dense].any():
            yield Contribution(name, name, None, dense)
        theirs = np.flatnonzero(row.lists == group.list)
        names = names_of(column, held, (row.places[theirs] - self.plan.sparse_groups[name].start).tolist())
        for pair, word in zip(theirs.tolist(), names, strict=True):
            value = float(row.values[pair]) * column.deviation  # which is 1 but for pairs
            yield Contribution(name, word, value, float(found.pairs[pair]))


def _held(column: Column, rows: pa.Table, locate: Locate) -> list[Any]:
    """Return what each row holds in a column: its value, or all its words."""
    values = matching(column, rows, locate)
    is_list = column.sparse is not None and column.kind not in ONE_A_ROW
    return list(held_of(column, values)) if is_list else values_of(column, values)


def _entering(packed: Packed, dense: npt.NDArray[np.float32]) -> Iterator[Entering]:
    """Yield each row as it enters the model."""
    lengths, places, values = packed.ragged
    list_count, begins = lengths.shape[1], 0
    for row, categories in enumerate(packed.places):
        lists = np.repeat(np.arange(list_count), lengths[row])
        pairs = slice(begins, begins + len(lists))
        begins = pairs.stop
        yield Entering(dense[row], categories, list_count, lists, places[pairs], values[pairs])


def _code_of(task: Task, label: str) -> int:
    """Return the code of a class."""
    known = [str(each) for each in task.labels]
    if label not in known:
        hint = nearest(label, known) if known else "Leave the label out."
        raise SteepestError(f"The target {task.target!r} has no class {label!r}.", hint=hint)
    return known.index(label)


def _said(task: Task, code: int) -> str:
    """Say what the output is."""
    if task.kind == "number":
        return task.target
    if task.kind == "counts":
        return f"logarithm of the expected {task.target}"
    logit = "log-odds" if task.kind == "binary" else "logit"
    what = "margin" if task.loss == "hinge" else logit
    return f"{what} of {task.target} = {task.labels[code]}"
