"""What a fit needs of its data: rows as the descent takes them, and what was learned of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest import tasks
from steepest.data.columns import Plan
from steepest.data.gather import Mapped
from steepest.data.packed import PackedRows
from steepest.data.shared import Fetched, Shared
from steepest.process_group import ProcessGroup


class Rows(NamedTuple):
    """Rows as the descent takes them.

    Attributes
    ----------
    features
        float32 ``[rows, features]``, expanded when they are gathered.
    target
        See `steepest.tasks.encode_target`.
    weights
        float32 ``[rows]``, or ``None`` where all weigh the same.
    drawn_from
        The number of rows that these were drawn from; ``None`` where they are all.
    """

    features: PackedRows
    target: npt.NDArray[Any] | Mapped
    weights: npt.NDArray[np.float32] | Mapped | None
    drawn_from: int | None = None

    @property
    def data(self) -> dict[str, Any]:
        """What `steepest.minimize` takes as data."""
        dense = {"features": self.features, "target": self.target}
        if not self.features.layout.sparse:
            return dense
        lists = {} if self.features.lists is None else {"lists": self.features.lists}
        places = self.features.packed.places
        return {**dense, "places": Mapped(places, self.features.fleeting), **lists}


class SharedRows(NamedTuple):
    """Rows that several processes hold together, as the descent takes them; see `Rows`."""

    features: Shared | Fetched
    target: Shared | Fetched
    weights: Shared | Fetched | None

    @property
    def data(self) -> dict[str, Any]:
        """What `steepest.minimize` takes as data."""
        return {"features": self.features, "target": self.target}


class Together(NamedTuple):
    """The rows of all processes of a group."""

    group: ProcessGroup
    training: SharedRows
    validation: SharedRows | None


@dataclass(frozen=True)
class Prepared:
    """What a fit needs of its data.

    Parameters
    ----------
    task, plan
        What was learned.
    training, validation
        The rows.
    facts
        The part of the record that describes the data.
    key
        Names the data and what decides how it is encoded; None where nothing tells when the data changes.
    rejected
        Writes the list of rows that can't be used into a folder, if there are any.
    places
        Numbers of training rows, from 0 -> where they came from, for a person: the table is read again.
    together
        The rows of all processes, of which this one has ``training`` and ``validation``; ``None`` where it
        has them all.
    """

    task: tasks.Task
    plan: Plan
    training: Rows
    validation: Rows | None
    facts: dict[str, Any]
    key: str | None
    rejected: Callable[[Path], None]
    places: Callable[[Sequence[int]], list[str]] = lambda _: []
    together: Together | None = None

    @property
    def descended(self) -> Prepared | Together:
        """What has the rows that the descent goes over."""
        return self.together or self
