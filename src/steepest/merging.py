"""What one pass over the rows finds, and how the findings of several processes are merged."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from steepest.data.learning import Learner, learner_from_json
from steepest.data.shared import Group

TRAINING, VALIDATION = "training", "validation"


@dataclass
class Count:
    """Rows that were seen, and those of them that have no target."""

    rows: int = 0
    unlabelled: int = 0


class Pass(NamedTuple):
    """What a pass finds.

    Attributes
    ----------
    everything, training
        What was learned of the targets of all rows, and of the training rows.
    counts
        What was seen of the table, and of the file of rows to judge by.
    rows
        Rows to train on, and to judge by.
    """

    everything: Learner
    training: Learner
    counts: dict[str, Count]
    rows: dict[str, int]


Firsts = dict[str, tuple[int, ...]]
"""Part -> the number of each process's first row of it, and that of all rows."""


def told(group: Group, part: Any) -> list[Any]:
    """Return what each process tells, as plain JSON, by rank."""
    return [json.loads(each) for each in group.exchange(json.dumps(part).encode())]


def firsts_of(counts: list[int]) -> tuple[int, ...]:
    """Return the number of each process's first row, and that of all rows.

    Examples
    --------
    >>> firsts_of([3, 0, 2])
    (0, 3, 3, 5)
    """
    return tuple(itertools.accumulate(counts, initial=0))


def firsts_of_parts(rows: list[dict[str, int]]) -> Firsts:
    """Return the same for each part, from each process's rows of it."""
    return {part: firsts_of([each[part] for each in rows]) for part in rows[0]}


def merged(group: Group, pass_: Pass) -> tuple[Pass, Firsts]:
    """Return what the processes found together."""
    whole, *others = told(
        group,
        {
            "everything": pass_.everything.to_json(),
            "training": pass_.training.to_json(),
            "counts": {part: asdict(count) for part, count in pass_.counts.items()},
            "rows": pass_.rows,
        },
    )
    everything, training = (learner_from_json(whole[each]) for each in ("everything", "training"))
    for other in others:
        everything.merge(learner_from_json(other["everything"]))
        training.merge(learner_from_json(other["training"]))
    all_ = [whole, *others]
    counts = {
        part: Count(
            sum(each["counts"][part]["rows"] for each in all_),
            sum(each["counts"][part]["unlabelled"] for each in all_),
        )
        for part in pass_.counts
    }
    firsts = firsts_of_parts([each["rows"] for each in all_])
    rows = {part: each[-1] for part, each in firsts.items()}
    return Pass(everything, training, counts, rows), firsts
