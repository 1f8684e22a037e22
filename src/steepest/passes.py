"""The two passes over a table: the first learns the target and the column plan, the second encodes the rows.

Both see the same labelled rows in the same order, divided in the same way; neither keeps more than a few
stretches of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest import tasks
from steepest.data.cache import Filling, Form
from steepest.data.column_types import type_of
from steepest.data.columns import Plan
from steepest.data.layout import Ragged
from steepest.data.learning import Learner
from steepest.data.pairs import in_strips, strip_length
from steepest.data.prefetch import prefetch
from steepest.data.rejected import Rejects
from steepest.data.rows import Stretch, subset
from steepest.data.sampling import RowSample
from steepest.data.shared import Group
from steepest.data.split import Mask
from steepest.data.summary import numbers_of, plain_values
from steepest.dividing import Divide, Seen, Table, divider
from steepest.errors import SteepestError
from steepest.merging import TRAINING, VALIDATION, Count, Pass, firsts_of_parts, merged, told
from steepest.selection import CELLS, MOST_ROWS, SELECTING, Sample, select
from steepest.settings import Settings

OF_LISTS = ("list_places", "list_values", "list_numbers")
"""The arrays that hold the strips of text and lists, as many as there are."""


class Learned(NamedTuple):
    """What the first pass learns.

    Attributes
    ----------
    task, plan
        What the target asks for, and how columns become features.
    divide
        Which rows are held out; None where a file of them was named.
    rows
        Rows to train on, and to judge by; here, where other processes have more.
    firsts
        The number of each process's first row of each part, and of all rows of it.
    missing
        Column -> how many training rows have no value in it.
    counts
        What was seen of the table, and of the file of rows to judge by.
    selection
        How columns were chosen: see `steepest.selection.Selection`. None where all are learned from.
    strips
        Of text and lists: pairs of a strip, and about how many strips a row has; 0 where there are no such
        columns.
    """

    task: tasks.Task
    plan: Plan
    divide: Divide
    rows: dict[str, int]
    firsts: dict[str, tuple[int, ...]]
    missing: dict[str, int]
    counts: dict[str, Count]
    selection: dict[str, Any] | None
    strips: tuple[int, float] = (0, 0.0)

    @property
    def all_rows(self) -> dict[str, int]:
        """Rows to train on, and to judge by, in all processes."""
        return {part: firsts[-1] for part, firsts in self.firsts.items()}


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
    group: Group | None = None,
) -> Learned:
    """Learn what the target asks for from all labelled rows, and the column plan from the training rows.

    What is known of an earlier run stays; the rows are counted all the same. A group of processes learns
    from the rows of all.

    Raises
    ------
    SteepestError
        If the rows, the columns or the target can't be used.
    """
    divide = divider(settings, table, seen, group)
    counts = {TRAINING: Count()} | ({VALIDATION: Count()} if held else {})
    wishes = settings.wishes if group is None else replace(settings.wishes, sparse=False)
    learner = Learner(set_aside, wishes)
    pass_ = Pass(Learner([table.target]), learner, counts, {TRAINING: 0, VALIDATION: 0})
    sample = RowSample(settings.seed, SELECTING, MOST_ROWS) if settings.select and not known else None
    _go_over(pass_, sample if group is None else None, table, held, divide, rejects, seen)
    rows, firsts = pass_.rows, firsts_of_parts([pass_.rows])
    if group is not None:
        pass_, firsts = merged(group, pass_)
        table.require_labelled(pass_.counts[TRAINING])
        if held:
            held.require_labelled(pass_.counts[VALIDATION])
        sample = sample and _sampled(group, sample, firsts[TRAINING], table, divide, seen)
    if settings.holds_out and not (firsts[TRAINING][-1] and firsts[VALIDATION][-1]):
        raise SteepestError(
            "one row is too few to hold some out for validation.", hint="Give at least two rows."
        )
    summaries = pass_.training.summaries
    task, plan = known or (
        tasks.learn_task(
            table.target, pass_.everything.summaries[table.target], summaries[table.target], settings.loss
        ),
        pass_.training.plan(),
    )
    selection = None
    if sample is not None and settings.select is not None:
        some = _encoded_sample(settings, task, plan, sample)
        plan, selection = select(settings.select, task, plan, some, settings.seed)
    missing = {
        column.name: summaries[column.name].missing for column in plan.columns if column.name in summaries
    }
    if table.lags and settings.lags and not known:
        plan = replace(plan, lags=table.lags.only(plan.reads))
    strips = _strips(pass_.training.pairs(), plan, pass_.rows[TRAINING])
    return Learned(task, plan, divide, rows, firsts, missing, pass_.counts, selection, strips)


def _strips(pairs: dict[str, tuple[int, int]], plan: Plan, rows: int) -> tuple[int, float]:
    """Return how long strips are, and about how many a row has; see `Learned`."""
    listed = [pairs[name] for name in plan.sparse_groups if name in pairs]
    if not plan.layout.lists:
        return 0, 0.0
    most = max(most for _, most in listed)
    length = strip_length(sum(total for total, _ in listed), rows * len(listed), most)
    return length, sum(total / max(1, rows) / length + 0.5 for total, _ in listed)


def _go_over(
    pass_: Pass,
    sample: RowSample | None,
    table: Table,
    held: Table | None,
    divide: Divide,
    rejects: Rejects,
    seen: Seen,
) -> None:
    """Learn from all rows of the table, and from the targets of the file to judge by."""
    parts = table.parts("learning", seen, rejects=rejects, count=pass_.counts[TRAINING])
    with closing(prefetch((part, subset(part, ~mask)) for part, mask in divide(parts))) as pieces:
        for part, kept in pieces:
            pass_.everything.update(part.rows.select([table.target]), part.locate)
            pass_.training.update(kept.rows, kept.locate)
            if sample is not None:
                sample.update(kept.rows)
            pass_.rows[TRAINING] += kept.rows.num_rows
            pass_.rows[VALIDATION] += part.rows.num_rows - kept.rows.num_rows
    if held:
        for part in held.parts("learning", seen, rejects=rejects, count=pass_.counts[VALIDATION]):
            pass_.everything.update(part.rows.select([table.target]), part.locate)
            pass_.rows[VALIDATION] += part.rows.num_rows


def _sampled(
    group: Group, like: RowSample, firsts: tuple[int, ...], table: Table, divide: Divide, seen: Seen
) -> RowSample:
    """Return the sample of all processes' training rows: a row's number decides, so it must be known."""
    sample = like.beginning(firsts[group.rank])
    for part, mask in divide(table.parts("sampling", seen)):
        sample.update(subset(part, ~mask).rows)
    whole, *others = map(like.of, told(group, sample.to_json()))
    for other in others:
        whole.merge(other)
    return whole


def _encoded_sample(settings: Settings, task: tasks.Task, plan: Plan, sample: RowSample) -> Sample:
    """Encode a sample of the training rows, of as many as a linear model of this width may have."""
    part = Stretch(
        sample.table(max(2, CELLS // max(1, plan.width))), lambda row: f"row {row + 1} of a sample"
    )
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
            f"{part}.places": Form((rows, layout.categories), np.dtype(np.int32)),
            f"{part}.target": Form((rows,), np.dtype(np.int32 if task.kind == "classes" else np.float32)),
        }
        if weighted:
            shapes[f"{part}.weights"] = Form((rows,), np.dtype(np.float32))
        if layout.lists:
            length, strips = learned.strips
            count = 1 + int(strips * rows)
            shapes[f"{part}.begins"] = Form((rows + 1,), np.dtype(np.int64))
            shapes[f"{part}.list_places"] = Form((count, length), np.dtype(np.uint32))
            shapes[f"{part}.list_values"] = Form((count, length), np.dtype(np.float32))
            shapes[f"{part}.list_numbers"] = Form((count,), np.dtype(np.uint16))
    return shapes


def growing(shapes: Iterable[str]) -> list[str]:
    """Return the names of the arrays of which it is not known before how many rows they will have."""
    return [name for name in shapes if name.partition(".")[2] in OF_LISTS]


def encode(
    settings: Settings,
    table: Table,
    held: Table | None,
    learned: Learned,
    filling: Filling,
    seen: Seen,
    group: Group | None = None,
) -> None:
    """Encode all labelled rows into arrays, as `forms` says.

    One thread reads, one encodes, and this one writes.

    Raises
    ------
    SteepestError
        If the rows are not those that the plan was learned from, or a value can't be used.
    """
    weighed = False
    for part in learned.rows if learned.plan.layout.lists else ():
        for name, values in _padding(learned.strips[0]).items():
            filling.append(f"{part}.{name}", values)
        filling.append(f"{part}.begins", np.ones(1, np.int64))
    with closing(prefetch(_encoded(settings, table, held, learned, seen))) as pieces:
        for name, arrays in pieces:
            weighed |= name == TRAINING and "weights" in arrays and bool(arrays["weights"].any())
            if "begins" in arrays:
                arrays["begins"] += filling.filled[f"{name}.list_places"] - 1
            try:
                for each, values in arrays.items():
                    filling.append(f"{name}.{each}", values)
            except OverflowError:
                raise changed(table) from None
    fixed = {name: form.shape[0] for name, form in filling.forms.items() if name not in filling.pieces}
    if {name: filling.filled[name] for name in fixed} != fixed:
        raise changed(table)
    if group is not None:
        weighed = any(told(group, weighed))
    if settings.weights and not weighed:
        raise SteepestError(f"The row weights in {settings.weights!r} are all 0.")


Arrays = dict[str, npt.NDArray[Any]]


def _encoded(
    settings: Settings, table: Table, held: Table | None, learned: Learned, seen: Seen
) -> Iterator[tuple[str, Arrays]]:
    """Yield the encoded rows of each part, as they come."""
    by_class = tasks.class_weights(learned.task, settings.class_weight)
    named = (table.target, settings.weights, settings.split_by, settings.validation_column)
    columns = list(dict.fromkeys([*(name for name in named if name), *learned.plan.reads]))
    for part, mask in learned.divide(table.parts("encoding", seen, columns=columns)):
        arrays, lists = _arrays(settings, learned, part)
        training = _chosen(arrays, lists, ~mask, learned)
        if by_class is not None:
            weights = by_class[training["target"].astype(np.int64)] * training.get("weights", 1.0)
            training["weights"] = weights.astype(np.float32)
        yield TRAINING, training
        yield VALIDATION, _chosen(arrays, lists, mask, learned)
    if held:
        for part in held.parts("encoding", seen, columns=columns):
            arrays, lists = _arrays(settings, learned, part)
            yield VALIDATION, _chosen(arrays, lists, np.ones(part.rows.num_rows, np.bool_), learned)


def _arrays(settings: Settings, learned: Learned, part: Stretch) -> tuple[Arrays, Ragged]:
    packed = learned.plan.pack(part.rows, part.locate)
    target = tasks.encode_target(learned.task, part.rows[learned.task.target], part.locate)
    arrays: Arrays = {
        "numbers": packed.numbers,
        "codes": packed.codes,
        "places": packed.places,
        "target": target,
    }
    weights = {"weights": row_weights(settings.weights, part)} if settings.weights else {}
    return arrays | weights, packed.ragged


def _chosen(arrays: Arrays, lists: Ragged, mask: Mask, learned: Learned) -> Arrays:
    """Return the rows that are chosen, their lists in strips."""
    layout = learned.plan.layout
    chosen = dict(arrays) if mask.all() else {name: values[mask] for name, values in arrays.items()}
    if not layout.lists:
        return chosen
    if not mask.all():
        of_pairs = np.repeat(mask, lists.lengths.sum(axis=1))
        lists = Ragged(lists.lengths[mask], lists.places[of_pairs], lists.values[of_pairs])
    pairs = in_strips(*lists, layout.sparse, learned.strips[0])
    kept = (each[1:] for each in (pairs.places, pairs.values, pairs.lists))  # the first is padding
    return chosen | {"begins": pairs.begins[1:], **dict(zip(OF_LISTS, kept, strict=True))}


def _padding(length: int) -> Arrays:
    """Return the strip that comes first in each part."""
    nothing = np.zeros(0, np.int32)
    pairs = in_strips(nothing[:, None], nothing, nothing.astype(np.float32), 0, length)
    return dict(zip(OF_LISTS, (pairs.places, pairs.values, pairs.lists), strict=True))


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
