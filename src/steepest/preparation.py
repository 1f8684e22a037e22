"""From data of any size to what a descent needs: a split, a column plan, encoded rows and targets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import steepest
from steepest import tasks
from steepest.data import cache
from steepest.data.columns import Plan, plan_from_json
from steepest.data.gather import Mapped
from steepest.data.lags import lags_in, unlagged
from steepest.data.layout import Layout, Packed
from steepest.data.packed import PackedRows
from steepest.data.pairs import Pairs
from steepest.data.rejected import FILE, Rejects
from steepest.data.rows import MEMORY, SPARK, Reconsidered, RowSource
from steepest.data.shared import Shared
from steepest.data.source import open_source
from steepest.data.spool import SpooledPasses, is_slow
from steepest.dividing import Seen, Table, check_split, places
from steepest.errors import SteepestError, nearest
from steepest.feeding import digest
from steepest.memory import least_memory, memory_budget, table_memory
from steepest.merging import TRAINING, VALIDATION
from steepest.passes import OF_LISTS, Known, Learned, encode, forms, growing, learn
from steepest.prepared import Prepared, Rows, SharedRows, Together
from steepest.process_group import ProcessGroup
from steepest.recording import facts_of
from steepest.settings import Settings

CACHED_FROM = 2**26
"""Bytes of encoded rows from which on they are kept on disk for the next run, if they come from files."""

DECIDES = (
    "target",
    "drop",
    "lags",
    "select",
    "split_by",
    "validation",
    "validation_column",
    "seed",
    "weights",
    "class_weight",
    "loss",
    "max_rejected",
    "kinds",
    "cross",
    "hash_bits",
    "minimum_count",
)
"""The settings that decide how rows are encoded."""


def prepare(
    settings: Settings,
    data: Any = None,
    held_out: Any = None,
    *,
    known: Known | None = None,
    say: Callable[[str], None] = lambda _: None,
    seen: Seen = lambda *_: None,
    group: ProcessGroup | None = None,
) -> Prepared:
    """Read, split and encode; the column plan is learned from the training rows alone.

    Parameters
    ----------
    settings
        What to do.
    data
        What to read instead of ``settings.data``: anything that `steepest.data.source.open_source` takes.
    held_out
        What to judge by instead of the file that ``settings.validation`` names, likewise.
    known
        What an earlier run has learned, and this one takes over.
    say, seen
        Are told of surprises, and how far the passes are.
    group
        The processes each of which reads a part of the rows, in the order of their ranks.

    Raises
    ------
    SteepestError
        If the files, the columns or the target can't be used.
    """
    roles = named(settings)
    check_split(settings)
    if data is None:
        require_files(settings)
    table = _open(settings, list(settings.data) if data is None else data, roles)
    aside, held = set_aside(settings, roles), None
    if settings.validation_file:
        rows = [settings.validation_file] if held_out is None else held_out
        held = _open(settings, rows, roles, f" in {settings.validation_file}")
    if group is not None:
        return _prepared_together(settings, table, held, aside, known, seen, group)
    find_places = partial(_places, settings, table)
    budget = memory_budget(settings.memory)
    key = _key(settings, table, held, known)
    entry = cache.find(key) if key else None
    if entry is not None:
        prepared = _from_entry(entry, key, budget)
        _require_memory(settings, budget, prepared.task, prepared.plan, entry.forms())
        return replace(prepared, places=find_places)
    with ExitStack() as stack:
        while True:
            rejects = Rejects()
            table, held = _kept(table, stack), held and _kept(held, stack)
            try:
                learned = learn(settings, table, held, aside, rejects, seen, known)
                encoded = _encoded(settings, table, held, learned, rejects, key, budget, seen)
                return replace(encoded, places=find_places)
            except Reconsidered as surprise:
                say(f"{surprise}; what was read is read anew.")
                table, held = _replaced(settings, table, held, surprise)


def _prepared_together(
    settings: Settings,
    table: Table,
    held: Table | None,
    roles: list[str],
    known: Known | None,
    seen: Seen,
    group: ProcessGroup,
) -> Prepared:
    """Return what a process of a group has of the rows; the other processes have the others."""
    rejects = Rejects()
    table, held = replace(table, whole=False), held and replace(held, whole=False)
    learned = learn(settings, table, held, roles, rejects, seen, known, group)
    budget = memory_budget(settings.memory)
    prepared = _encoded(settings, table, held, learned, rejects, None, budget, seen, group)
    training = _shared(prepared.training, learned.firsts[TRAINING], group)
    validation = prepared.validation and _shared(prepared.validation, learned.firsts[VALIDATION], group)
    if None in prepared.facts["data"]["fingerprints"]:
        prepared.facts["data"]["fingerprints"] = [digest((training.features, training.target))]
    return replace(prepared, together=Together(group, training, validation))


def _shared(rows: Rows, firsts: tuple[int, ...], group: ProcessGroup) -> SharedRows:
    """Return a process's rows as a part of all."""
    weights = None if rows.weights is None else Shared(rows.weights, firsts, group)
    return SharedRows(Shared(rows.features, firsts, group), Shared(rows.target, firsts, group), weights)


def _places(settings: Settings, table: Table, numbers: Sequence[int]) -> list[str]:
    """Return where training rows came from, however the table's first rows were judged."""
    while True:
        try:
            return places(settings, table, numbers)
        except Reconsidered as surprise:
            table = _table(settings, unlagged(surprise.source), table.of)


def _kept(table: Table, stack: ExitStack) -> Table:
    """Return a table whose rows are kept once they were read, if reading them is slow."""
    if not is_slow(table.source):
        return table
    source = SpooledPasses(table.source, cache.cache_folder())
    stack.callback(source.close)
    return replace(table, source=source)


def _open(settings: Settings, data: Any, roles: dict[str, str], of: str = "") -> Table:
    drop = [name for name in settings.drop if name not in settings.lags]
    source = open_source(data, drop=drop, max_rejected=settings.max_rejected)
    require_columns(source.schema.names, roles, source.names)
    return _table(settings, source, of)


def _table(settings: Settings, source: RowSource, of: str) -> Table:
    lags = lags_in(source.schema, settings.lags) if settings.in_order else None
    return Table(source, settings.target, of, lags=lags)


def set_aside(settings: Settings, roles: Mapping[str, str]) -> list[str]:
    """Return the columns that are read and not learned from: the named, and those wanted for lags only."""
    return [*roles, *(name for name in settings.drop if name in settings.lags)]


def _replaced(
    settings: Settings, table: Table, held: Table | None, surprise: Reconsidered
) -> tuple[Table, Table | None]:
    """Return the tables with the source that was judged wrongly replaced."""
    source = unlagged(surprise.source)
    if held and source.names == held.source.names:
        return table, _table(settings, source, held.of)
    return _table(settings, source, table.of), held


def _key(settings: Settings, table: Table, held: Table | None, known: Known | None) -> str | None:
    """Return the name of the cache's entry for these rows; None where nothing tells when they change."""
    prints = [each.source.fingerprint() for each in (table, held) if each]
    if None in prints:
        return None
    decides = {name: getattr(settings, name) for name in DECIDES}
    taken_over = known and [asdict(known.task), known.plan.to_json()]
    return cache.key_of({"steepest": steepest.__version__, "data": prints, "known": taken_over, **decides})


def _encoded(
    settings: Settings,
    table: Table,
    held: Table | None,
    learned: Learned,
    rejects: Rejects,
    key: str | None,
    budget: int,
    seen: Seen,
    group: ProcessGroup | None = None,
) -> Prepared:
    """Encode the rows: small ones in memory, large ones in the cache."""
    shapes = forms(settings, learned)
    _require_memory(settings, budget, learned.task, learned.plan, shapes)
    size = sum(form.size for form in shapes.values())
    facts = facts_of(settings, table, held, learned, rejects, named(settings))
    if size <= (min(CACHED_FROM, budget // 4) if key else budget // 4):
        with cache.Filling(shapes, None, growing(shapes)) as filling:
            encode(settings, table, held, learned, filling, seen, group)
            _require_unchanged(table, held)
            arrays = filling.finish()
        return _prepared(learned.task, learned.plan, facts, arrays, False, key, rejects.write)
    name = key or cache.unique_key()
    with cache.new_entry(name) as aside, cache.Filling(shapes, aside, growing(shapes)) as filling:
        encode(settings, table, held, learned, filling, seen, group)
        _require_unchanged(table, held)
        filling.finish()
        rejects.write(aside)
        made = {"task": asdict(learned.task), "plan": learned.plan.to_json(), "facts": facts}
        cache.seal(aside, filling.forms, made | {"sources": list(table.source.names)})
    entry = cache.find(name)
    if entry is None:
        raise SteepestError(
            f"The cache {cache.cache_folder()} was cleared while it was written.", hint="Run it again."
        )
    prepared = _from_entry(entry, key, budget)
    if key is None:  # nobody can use it again; its files stay for this process as long as it maps them
        shutil.rmtree(entry.path, ignore_errors=True)
    return prepared


def _require_memory(
    settings: Settings, budget: int, task: tasks.Task, plan: Plan, shapes: Mapping[str, cache.Form]
) -> None:
    """Refuse a bound that was asked for and can't be kept."""
    if settings.memory is None:
        return
    rows = shapes[f"{TRAINING}.target"].shape[0]
    kept = {
        name.partition(".")[2]: form.size // rows
        for name, form in shapes.items()
        if name.startswith(TRAINING)
    }
    sparse = sum(kept.get(name, 0) for name in ("places", *OF_LISTS))
    columns = task.outputs + (settings.embedding if settings.model == "mlp" else 0)
    batch_size = rows if settings.batch_size == "all" else int(settings.batch_size)
    table = table_memory(plan.layout.sparse, columns)
    least = least_memory(rows, 4 * plan.width, sum(kept.values()), batch_size, sparse, table)
    if budget < least:
        raise SteepestError(
            f"--memory {settings.memory} is too little for {rows:,} rows of "
            f"{plan.width + plan.layout.sparse:,} features.",
            hint=f"The least that works is --memory {-(-least // 2**20)}MB.",
        )


def _require_unchanged(table: Table, held: Table | None) -> None:
    """Refuse files that are others than when they were opened: what was kept of them would soon surprise."""
    for each in (table, held):
        if each:
            each.source.fingerprint()


def _from_entry(entry: cache.Entry, key: str | None, budget: int) -> Prepared:
    def rejected(folder: Path) -> None:
        if (entry.path / FILE).is_file():
            shutil.copyfile(entry.path / FILE, folder / FILE)

    facts = entry.facts
    task, plan = tasks.task_from_json(facts["task"]), plan_from_json(facts["plan"])
    return _prepared(task, plan, facts["facts"], entry.arrays(), entry.size > budget // 2, key, rejected)


def _prepared(
    task: tasks.Task,
    plan: Plan,
    facts: dict[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    fleeting: bool,
    key: str | None,
    rejected: Callable[[Path], None],
) -> Prepared:
    def rows(part: str) -> Rows:
        numbers, codes, places = (arrays[f"{part}.{name}"] for name in ("numbers", "codes", "places"))
        packed = Packed(numbers, codes, places, plan.layout.empty(0).ragged)
        weights = f"{part}.weights"
        return Rows(
            PackedRows(plan.layout, packed, _lists(plan.layout, arrays, part, fleeting), fleeting),
            _column(arrays[f"{part}.target"], fleeting),
            _column(arrays[weights], fleeting) if weights in arrays else None,
        )

    held_out = rows(VALIDATION) if facts["split"]["validation_rows"] else None
    return Prepared(task, plan, rows(TRAINING), held_out, facts, key, rejected)


def _lists(layout: Layout, arrays: Mapping[str, npt.NDArray[Any]], part: str, fleeting: bool) -> Pairs | None:
    """Return the pairs of a part's text and lists, if there are such columns."""
    if not layout.lists:
        return None
    begins, places, values, numbers = (arrays[f"{part}.{name}"] for name in ("begins", *OF_LISTS))
    return Pairs(begins, places, values, numbers, layout.lists, layout.sparse, fleeting)


def _column(array: npt.NDArray[Any], fleeting: bool) -> npt.NDArray[Any] | Mapped:
    return Mapped(array, fleeting) if isinstance(array, np.memmap) else array


def named(settings: Settings) -> dict[str, str]:
    """Return the columns that the settings name, and what for."""
    roles: dict[str, str] = {}
    for name, role in (
        (settings.target, "target"),
        (settings.split_by, "column to split by"),
        (settings.validation_column, "column of rows to judge by"),
        (settings.weights, "column of row weights"),
    ):
        if name and name in settings.drop:
            raise SteepestError(f"--drop leaves out {name!r}, which is the {role}.", hint="Name one of both.")
        if name and name in roles:
            raise SteepestError(
                f"The column {name!r} can't be both the {roles[name]} and the {role}.",
                hint="Name another column.",
            )
        if name:
            roles[name] = role
    return roles


def require_files(settings: Settings) -> None:
    """Refuse data that only the caller had.

    Raises
    ------
    SteepestError
        With how to go on.
    """
    if settings.data == MEMORY:
        raise SteepestError(
            "The rows of this run were in memory, and no file has them.",
            hint="Call steepest.fit again with the same data and settings: it goes on where the run stopped.",
        )
    if settings.data == SPARK:
        raise SteepestError(
            "The rows of this run were those of a Spark DataFrame, and no file has them.",
            hint="Fit the same frame with the same settings again: what was interrupted goes on.",
        )


def require_columns(known: Sequence[str], roles: Mapping[str, str], files: Sequence[str]) -> None:
    """Refuse names that the table does not have.

    Raises
    ------
    SteepestError
        With the nearest name.
    """
    for name, role in roles.items():
        if name not in known:
            raise SteepestError(
                f"{', '.join(files)} has no column {name!r} ({role}).", hint=nearest(name, known)
            )
