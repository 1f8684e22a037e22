"""The two passes over a table: the first learns the target and the column plan, the second encodes the rows.

Both see the same labelled rows in the same order, divided in the same way; neither keeps more than a few
stretches of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from steepest import tasks
from steepest.data.cache import Filling, Form
from steepest.data.columns import Plan
from steepest.data.encode import infinite_values
from steepest.data.learning import Learner
from steepest.data.prefetch import prefetch
from steepest.data.rejected import Rejects
from steepest.data.rows import RowSource, Stretch, piece, subset
from steepest.data.sampling import RowSample
from steepest.data.split import RUN, Groups, Mask, rows_held_out
from steepest.data.summary import numbers_of, plain_values, type_of
from steepest.errors import SteepestError
from steepest.selection import CELLS, MOST_ROWS, SELECTING, Sample, select
from steepest.settings import Settings

Seen = Callable[[str, int, int | None], None]
"""Is told what is being done, with how many rows so far, of how many where known."""

Divide = Callable[[Iterator[Stretch]], Iterator[tuple[Stretch, Mask]]]
"""Labelled rows -> the same, and which of them are held out."""

TRAINING, VALIDATION = "training", "validation"


@dataclass
class Count:
    """Rows that were seen, and those of them that have no target."""

    rows: int = 0
    unlabelled: int = 0


@dataclass(frozen=True)
class Table:
    """A source of which the rows with a target are wanted.

    Parameters
    ----------
    source
        Where the rows come from.
    target
        The target's column.
    of
        What is added to messages: `` in FILE``.
    """

    source: RowSource
    target: str
    of: str = ""

    def parts(
        self,
        doing: str,
        seen: Seen,
        *,
        columns: list[str] | None = None,
        rejects: Rejects | None = None,
        count: Count | None = None,
    ) -> Iterator[Stretch]:
        """Yield the rows that have a target.

        Raises
        ------
        SteepestError
            If none has one, or one is infinite.
        """
        count = count or Count()
        stretches = prefetch(self.source.stretches(columns))
        try:
            for stretch in stretches:
                if rejects is not None:
                    rejects.add(stretch.rejected)
                labelled = subset(stretch, np.asarray(pc.is_valid(plain_values(stretch.rows[self.target]))))
                self._require_finite(labelled)
                count.rows += stretch.rows.num_rows
                count.unlabelled += stretch.rows.num_rows - labelled.rows.num_rows
                seen(doing, count.rows, self.source.rows)
                if labelled.rows.num_rows:
                    yield labelled
        finally:
            stretches.close()
        if count.rows == count.unlabelled:
            raise SteepestError(
                f"The target {self.target!r} is missing in every row{self.of}.", hint="Name another target."
            )

    def _require_finite(self, part: Stretch) -> None:
        column = part.rows[self.target]
        if type_of(column.type) == "number" and np.isinf(numbers_of(plain_values(column))).any():
            raise infinite_values(self.target, column, part.locate)


class Learned(NamedTuple):
    """What the first pass learns.

    Attributes
    ----------
    task, plan
        What the target asks for, and how columns become features.
    divide
        Which rows are held out; None where a file of them was named.
    rows
        Rows to train on, and to judge by.
    missing
        Column -> how many training rows have no value in it.
    counts
        What was seen of the table, and of the file of rows to judge by.
    selection
        How columns were chosen: see `steepest.selection.Selection`. None where all are learned from.
    """

    task: tasks.Task
    plan: Plan
    divide: Divide
    rows: dict[str, int]
    missing: dict[str, int]
    counts: dict[str, Count]
    selection: dict[str, Any] | None


def divider(settings: Settings, table: Table, seen: Seen) -> Divide:
    """Return what holds rows out; whole groups need a pass of their own that counts them."""
    fraction, seed, name = settings.validation, settings.seed, settings.split_by
    if isinstance(fraction, str) or not fraction:
        return lambda parts: ((part, np.zeros(part.rows.num_rows, np.bool_)) for part in parts)
    if name is None:
        return lambda parts: _by_rows(parts, fraction, seed)
    groups = Groups(seed)
    for part in table.parts("counting groups", seen, columns=[table.target, name]):
        groups.add(part.rows[name])
    held_out = groups.held_out(fraction)
    return lambda parts: ((part, held_out(part.rows[name])) for part in parts)


def _by_rows(parts: Iterator[Stretch], fraction: float, seed: int) -> Iterator[tuple[Stretch, Mask]]:
    """Divide rows run by run: a run's rows wait until it is known how many it has."""
    waiting: list[Stretch] = []
    run = held = 0

    def divided() -> Iterator[tuple[Stretch, Mask]]:
        mask, first = rows_held_out(run, held, fraction, seed), 0
        for part in waiting:
            yield part, mask[first : first + part.rows.num_rows]
            first += part.rows.num_rows

    for part in parts:
        first = 0
        while first < part.rows.num_rows:
            count = min(RUN - held, part.rows.num_rows - first)
            waiting.append(piece(part, first, count))
            first, held = first + count, held + count
            if held == RUN:
                yield from divided()
                waiting, held, run = [], 0, run + 1
    yield from divided()


def places(settings: Settings, table: Table, numbers: Sequence[int]) -> list[str]:
    """Return where training rows, numbered from 0, came from, for a person; the table is read up to them."""

    def unseen(*_: object) -> None:
        pass

    found: dict[int, str] = {}
    first = 0
    for part, mask in divider(settings, table, unseen)(table.parts("finding rows", unseen)):
        kept = subset(part, ~mask)
        last = first + kept.rows.num_rows
        found |= {number: kept.locate(number - first) for number in numbers if first <= number < last}
        if len(found) == len(set(numbers)):
            break
        first = last
    return [found[number] for number in numbers]


class Known(NamedTuple):
    """What an earlier run has learned."""

    task: tasks.Task
    plan: Plan


def learn(
    settings: Settings,
    table: Table,
    held: Table | None,
    set_aside: list[str],
    rejects: Rejects,
    seen: Seen,
    known: Known | None = None,
) -> Learned:
    """Learn what the target asks for from all labelled rows, and the column plan from the training rows.

    What is known of an earlier run stays; the rows are counted all the same.

    Raises
    ------
    SteepestError
        If the rows, the columns or the target can't be used.
    """
    divide = divider(settings, table, seen)
    everything, training = Learner([table.target]), Learner(set_aside)
    sample = RowSample(settings.seed, SELECTING, MOST_ROWS) if settings.select and not known else None
    counts = {TRAINING: Count()} | ({VALIDATION: Count()} if held else {})
    rows = {TRAINING: 0, VALIDATION: 0}
    parts = table.parts("learning", seen, rejects=rejects, count=counts[TRAINING])
    with closing(prefetch((part, subset(part, ~mask)) for part, mask in divide(parts))) as pieces:
        for part, kept in pieces:
            everything.update(part.rows.select([table.target]), part.locate)
            training.update(kept.rows, kept.locate)
            if sample is not None:
                sample.update(kept.rows)
            rows[TRAINING] += kept.rows.num_rows
            rows[VALIDATION] += part.rows.num_rows - kept.rows.num_rows
    if held:
        for part in held.parts("learning", seen, rejects=rejects, count=counts[VALIDATION]):
            everything.update(part.rows.select([table.target]), part.locate)
            rows[VALIDATION] += part.rows.num_rows
    if settings.validation and not (rows[TRAINING] and rows[VALIDATION]):
        raise SteepestError(
            "one row is too few to hold some out for validation.", hint="Give at least two rows."
        )
    summaries = training.summaries
    task, plan = known or (
        tasks.learn_task(
            table.target, everything.summaries[table.target], summaries[table.target], settings.loss
        ),
        training.plan(),
    )
    selection = None
    if sample is not None and settings.select is not None:
        plan, selection = select(
            settings.select, task, plan, _encoded_sample(settings, task, plan, sample), settings.seed
        )
    missing = {
        column.name: summaries[column.name].missing for column in plan.columns if column.name in summaries
    }
    return Learned(task, plan, divide, rows, missing, counts, selection)


def _encoded_sample(settings: Settings, task: tasks.Task, plan: Plan, sample: RowSample) -> Sample:
    """Encode a sample of the training rows, of as many as a linear model of this width may have."""
    part = Stretch(sample.table(max(2, CELLS // plan.width)), lambda row: f"row {row + 1} of a sample")
    target = tasks.encode_target(task, part.rows[task.target], part.locate)
    weights = row_weights(settings.weights, part) if settings.weights else np.ones(len(target))
    by_class = tasks.class_weights(task, settings.class_weight)
    if by_class is not None:
        weights = weights * by_class[target.astype(np.int64)]
    return Sample(plan.encode(part.rows, part.locate), target, weights.astype(np.float32))


def forms(settings: Settings, learned: Learned) -> dict[str, Form]:
    """Return the arrays that the second pass fills: shapes and types by name."""
    layout, task = learned.plan.layout, learned.task
    shapes: dict[str, Form] = {}
    for part, rows in learned.rows.items():
        weighted = settings.weights or (part == TRAINING and settings.class_weight)
        shapes |= {
            f"{part}.numbers": Form((rows, layout.numbers), np.dtype(np.float32)),
            f"{part}.codes": Form((rows, len(layout.code_widths)), np.dtype(layout.code_type)),
            f"{part}.target": Form((rows,), np.dtype(np.int32 if task.kind == "classes" else np.float32)),
        }
        if weighted:
            shapes[f"{part}.weights"] = Form((rows,), np.dtype(np.float32))
    return shapes


def encode(
    settings: Settings, table: Table, held: Table | None, learned: Learned, filling: Filling, seen: Seen
) -> None:
    """Encode all labelled rows into arrays, as `forms` says.

    One thread reads, one encodes, and this one writes.

    Raises
    ------
    SteepestError
        If the rows are not those that the plan was learned from, or a value can't be used.
    """
    weighed = False
    with closing(prefetch(_encoded(settings, table, held, learned, seen))) as pieces:
        for name, arrays in pieces:
            weighed |= name == TRAINING and "weights" in arrays and bool(arrays["weights"].any())
            try:
                for each, values in arrays.items():
                    filling.append(f"{name}.{each}", values)
            except OverflowError:
                raise changed(table) from None
    if filling.filled != {name: form.shape[0] for name, form in filling.forms.items()}:
        raise changed(table)
    if settings.weights and not weighed:
        raise SteepestError(f"The row weights in {settings.weights!r} are all 0.")


Arrays = dict[str, npt.NDArray[Any]]


def _encoded(
    settings: Settings, table: Table, held: Table | None, learned: Learned, seen: Seen
) -> Iterator[tuple[str, Arrays]]:
    """Yield the encoded rows of each part, as they come."""
    by_class = tasks.class_weights(learned.task, settings.class_weight)
    named = (table.target, settings.weights, settings.split_by)
    columns = [*dict.fromkeys(name for name in named if name), *(each.name for each in learned.plan.columns)]
    for part, mask in learned.divide(table.parts("encoding", seen, columns=columns)):
        arrays = _arrays(settings, learned, part)
        training = _chosen(arrays, ~mask)
        if by_class is not None:
            weights = by_class[training["target"].astype(np.int64)] * training.get("weights", 1.0)
            training["weights"] = weights.astype(np.float32)
        yield TRAINING, training
        yield VALIDATION, _chosen(arrays, mask)
    if held:
        for part in held.parts("encoding", seen, columns=columns):
            yield VALIDATION, _arrays(settings, learned, part)


def _arrays(settings: Settings, learned: Learned, part: Stretch) -> Arrays:
    packed = learned.plan.pack(part.rows, part.locate)
    target = tasks.encode_target(learned.task, part.rows[learned.task.target], part.locate)
    arrays: Arrays = {"numbers": packed.numbers, "codes": packed.codes, "target": target}
    return arrays | ({"weights": row_weights(settings.weights, part)} if settings.weights else {})


def _chosen(arrays: Arrays, mask: Mask) -> Arrays:
    """Return the rows that are chosen."""
    return dict(arrays) if mask.all() else {name: values[mask] for name, values in arrays.items()}


def changed(table: Table) -> SteepestError:
    """Return the error about a table that was not the same the second time."""
    return SteepestError(
        f"{', '.join(table.source.names)} changed while it was read: there are other rows than before.",
        hint="Run it again once nobody writes there.",
    )


def row_weights(name: str, part: Stretch) -> npt.NDArray[np.float64]:
    """Return the weights in a column, float64 [rows].

    Raises
    ------
    SteepestError
        If there is none for a row, or one that can't be used.
    """
    column = part.rows[name]
    if type_of(column.type) not in tasks.NUMERIC:
        raise SteepestError(f"The column of row weights {name!r} holds {column.type}; weights are numbers.")
    weights = numbers_of(plain_values(column))
    wrong = np.flatnonzero(~((weights >= 0) & (weights <= tasks.MOST_WEIGHT)))
    if len(wrong):
        raise SteepestError(
            f"The column of row weights {name!r} holds {weights[wrong[0]]} at {part.locate(int(wrong[0]))}; "
            f"weights lie between 0 and {tasks.MOST_WEIGHT:g}.",
            hint="Correct them, or take these rows out.",
        )
    return weights
