"""Checkpoints: where a descent stands, written so that a crash at any moment leaves a whole one behind.

====================================  ==================================================================
``checkpoint-<number>.safetensors``   state, best parameters, counters, and which parts of the history belong
``history-<checksum>.safetensors``    a part of the history: steps and epochs that follow one another
====================================  ==================================================================

Each is a sealed file (`steepest.sealed`). The last two checkpoints are kept, with the parts of the history
that they list; every other file of these names goes.

A tree's structure is not stored: its leaves are, each by its path, and they must be those of the tree that
the same settings make. The history is not written anew each time: a checkpoint adds a part to it, which takes
in the parts before it that are no longer than itself; so parts are few, and a step is seldom written again.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.descent.history import Figures, History, Steps
from steepest.descent.schedules import PlateauState
from steepest.descent.standing import Setback, Standing, Totals
from steepest.descent.stopping import Best, Watched
from steepest.errors import SteepestError
from steepest.sealed import Arrays, Notes, as_json, read, rename, write_aside

FORMAT = 2
"""Version of the files' format."""

SHARE = 50
"""How many times as long as it takes to save a checkpoint the descent goes on before the next."""

LONGEST_PART = 2**20
"""Steps of a part of the history that no other is joined to any more: about 30 MiB."""


GOOD = "good/"
"""Stands before the names of the arrays of the place that a descent goes back to."""


class OtherDescentError(SteepestError):
    """A checkpoint is of another descent than the one that was to go on from it."""


class Part(NamedTuple):
    """A part of the history, in a file of its own: the steps and the epochs ``first`` to ``last - 1``."""

    checksum: str
    first_step: int
    last_step: int
    first_epoch: int
    last_epoch: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"history-{self.checksum[:32]}.safetensors"


@dataclass
class Checkpoints:
    """The checkpoints of one descent in one folder.

    Parameters
    ----------
    folder
        Where they are; it is made if there is none.
    facts
        What must be the same for a descent to go on, as JSON.
    every
        Seconds between two checkpoints; more, where that keeps them under 2% of the time. 0 saves whenever a
        window is over, whatever it costs.
    """

    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    every: float = 60.0
    _due: float = field(init=False, repr=False)
    _number: int = field(default=0, init=False, repr=False)
    _kept: list[tuple[str, list[Part]]] = field(default_factory=list, init=False, repr=False)
    _offered: Standing | None = field(default=None, init=False, repr=False)
    _saved: Standing | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.facts = json.loads(as_json(self.facts))
        self._due = time.perf_counter() + self.every

    def offer(self, standing: Standing) -> None:
        """Save where the descent stands if it is time to; else remember it for `finish`."""
        self._offered = standing
        if time.perf_counter() >= self._due:
            self.save(standing)

    def finish(self) -> None:
        """Save what was offered last, if it has not been saved.

        A descent in place that is interrupted before its first look at a window has written over that.
        """
        if self._offered is not None and self._offered is not self._saved and not _is_gone(self._offered):
            self.save(self._offered)

    def save(self, standing: Standing) -> None:
        """Write a checkpoint.

        Raises
        ------
        SteepestError
            If it can't be written; the one before it stays as it is.
        """
        began = time.perf_counter()
        name = f"checkpoint-{self._number + 1:06}.safetensors"
        arrays = _arrays(standing)
        try:
            parts = self._extend(standing)
            _write(self.folder / name, arrays, {**_notes(standing), "facts": self.facts, "parts": parts})
        except OSError as error:
            raise self._unwritable(error) from error
        self._number += 1
        self._kept = [*self._kept[-1:], (name, parts)]
        self._saved = standing
        self._remove_others()
        cost = time.perf_counter() - began
        self._due = began + cost + max(self.every, SHARE * cost) if self.every else 0.0

    def newest(self, template: Standing, say: Callable[[str], None]) -> Standing | None:
        """Return where the newest whole checkpoint stands, if there is one.

        Parameters
        ----------
        template
            Where the same descent begins.
        say
            Told in a sentence of each checkpoint that is damaged.

        Raises
        ------
        SteepestError
            If it is of another descent, if none of them is whole, or if the folder can't be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        found = sorted(
            ((int(match[1]), path) for path, match in self._files(r"checkpoint-(\d+)")), reverse=True
        )
        self._number = max((number for number, _ in found), default=0)
        for place, (_, path) in enumerate(found):
            try:
                arrays, notes, _ = read(path)
                self._compare(path, notes)
                parts = [Part(*part) for part in notes["parts"]]
                history = self._history(parts)
            except (OSError, ValueError) as error:
                say(f"The checkpoint {path} can't be used: {error}.")
                continue
            standing = _standing(template, arrays, notes, history, path)
            self._kept = [*_first_whole(found[place + 1 :]), (path.name, parts)]
            self._remove_others()
            self._offered = self._saved = standing
            return standing
        if found:
            raise SteepestError(
                f"None of the checkpoints in {self.folder} is whole.", hint="Remove the folder to begin anew."
            )
        return None

    def _extend(self, standing: Standing) -> list[Part]:
        """Write down what the history has gained, and return the parts that it consists of."""
        parts = list(self._kept[-1][1]) if self._kept else []
        while parts and (parts[-1].last_step > standing.recorded or parts[-1].last_epoch > standing.epoch):
            parts.pop()  # the descent has backed off
        step, epoch = (parts[-1].last_step, parts[-1].last_epoch) if parts else (0, 0)
        if (standing.recorded, standing.epoch) == (step, epoch):
            return parts
        while (
            parts
            and step - parts[-1].first_step <= standing.recorded - step
            and standing.recorded - parts[-1].first_step <= LONGEST_PART
        ):
            step, epoch = parts[-1].first_step, parts[-1].first_epoch
            parts.pop()
        history = standing.history
        steps = history.steps(step, standing.recorded)
        epochs, epoch_names = _columns("epochs", history.epochs[epoch : standing.epoch])
        seen = [each for each in history.looks if step < each["step"] <= standing.recorded]
        looks, look_names = _columns("looks", seen)
        aside = self.folder / ".history.part"
        notes = {"epochs": epoch_names, "looks": look_names}
        checksum = write_aside(aside, {**steps._asdict(), **epochs, **looks}, notes)
        part = Part(checksum, step, standing.recorded, epoch, standing.epoch)
        rename(aside, self.folder / part.name)
        return [*parts, part]

    def _history(self, parts: list[Part]) -> History:
        """Return the history that consists of the parts."""
        steps: list[Steps] = []
        epochs: list[Figures] = []
        looks: list[Figures] = []
        for part in parts:
            try:
                arrays, notes, checksum = read(self.folder / part.name)
            except FileNotFoundError:
                raise ValueError(f"{part.name}, which belongs to it, is gone") from None
            if checksum != part.checksum:
                raise ValueError(f"{part.name} is not the one that belongs to it")
            steps.append(Steps(*(arrays[name] for name in Steps._fields)))
            epochs += _rows("epochs", notes["epochs"], arrays)
            looks += _rows("looks", notes["looks"], arrays)
        return History(steps, epochs, looks)

    def _compare(self, path: Path, notes: Notes) -> None:
        """Refuse a checkpoint whose facts are others."""
        then, now = {"format": notes["format"], **notes["facts"]}, {"format": FORMAT, **self.facts}
        for name in {**then, **now}:
            if then.get(name) != now.get(name):
                raise _of_another(path, f"its {name} was {then.get(name)} and is now {now.get(name)}")

    def _files(self, pattern: str) -> list[tuple[Path, re.Match[str]]]:
        """Return the folder's files whose names, but for their ending, are of the pattern."""
        matches = (
            (path, re.fullmatch(rf"(?:{pattern})\.safetensors", path.name)) for path in self.folder.iterdir()
        )
        return [(path, match) for path, match in matches if match]

    def _remove_others(self) -> None:
        """Remove checkpoints and parts of the history that belong to none of the last two."""
        kept = {name for name, _ in self._kept} | {part.name for _, parts in self._kept for part in parts}
        for path, _ in self._files(r"checkpoint-\d+|history-[0-9a-f]{32}"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> SteepestError:
        return SteepestError(
            f"The checkpoint can't be written to {self.folder}: {error.strerror or error}.",
            hint="Make room there, or choose another folder; what was saved before is as it was.",
        )


def _is_gone(standing: Standing) -> bool:
    return any(leaf.is_deleted() for leaf in jax.tree.leaves(standing.state) if isinstance(leaf, jax.Array))


def _columns(kind: str, rows: list[Figures]) -> tuple[Arrays, list[str]]:
    """Return figures as arrays, and their names in their order."""
    names = list(rows[0]) if rows else []
    return {f"{kind}/{name}": np.asarray([figures[name] for figures in rows]) for name in names}, names


def _rows(kind: str, names: list[str], arrays: Arrays) -> list[Figures]:
    """Return the figures that were written as arrays."""
    columns = [arrays[f"{kind}/{name}"].tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _first_whole(found: Iterable[tuple[int, Path]]) -> list[tuple[str, list[Part]]]:
    """Return the first of the checkpoints that is whole, if one is."""
    for _, path in found:
        with contextlib.suppress(OSError, ValueError):
            return [(path.name, [Part(*part) for part in read(path)[1]["parts"]])]
    return []


def _leaves(name: str, tree: Any) -> Arrays:
    """Return a tree's leaves by their paths; random keys as their numbers."""
    return {
        name + jax.tree_util.keystr(path): np.asarray(_without_type(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _without_type(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _arrays(standing: Standing) -> Arrays:
    """Return a checkpoint's arrays."""
    arrays = {**_leaves("state", standing.state), **_leaves("best", standing.best.parameters)}
    good = _arrays(standing.good) if standing.good else {}
    return arrays | {f"{GOOD}{name}": array for name, array in good.items()}


def _notes(standing: Standing) -> Notes:
    """Return what a checkpoint holds besides arrays."""
    return {
        "format": FORMAT,
        "epoch": standing.epoch,
        "window": standing.window,
        "totals": standing.totals,
        "watched": standing.watched,
        "plateau": standing.plateau,
        "best": standing.best[:-1],
        "stopped": standing.stopped,
        "seconds": standing.seconds,
        "recorded": standing.recorded,
        "lowest": standing.lowest,
        "setbacks": standing.setbacks,
        "good": standing.good and _notes(standing.good),
    }


def _standing(template: Standing, arrays: Arrays, notes: Notes, history: History, path: Path) -> Standing:
    """Return where a checkpoint stands."""
    figure, epoch, waited = notes["best"]
    parameters = template.best.parameters
    wanted = {**_leaves("state", template.state), **_leaves("best", parameters)}
    of_good = {name: array for name, array in arrays.items() if name.startswith(GOOD)}
    for name in {**wanted, **arrays}:
        if name in of_good:
            continue
        then, now = _form(arrays.get(name)), _form(wanted.get(name))
        if then != now:
            raise _of_another(path, f"its {name} was {then} and is now {now}")
    good = None
    if notes["good"]:
        before = history.until(notes["good"]["recorded"], notes["good"]["epoch"])
        theirs = {name.removeprefix(GOOD): array for name, array in of_good.items()}
        good = _standing(replace(template, good=None), theirs, notes["good"], before, path)
    return replace(
        template,
        state=_filled("state", template.state, arrays),
        epoch=notes["epoch"],
        window=notes["window"],
        totals=Totals(*notes["totals"]),
        watched=Watched(*notes["watched"]),
        plateau=PlateauState(*notes["plateau"]),
        best=Best(figure, epoch, waited, _filled("best", parameters, arrays)),
        stopped=notes["stopped"],
        seconds=notes["seconds"],
        recorded=notes["recorded"],
        history=history,
        good=good,
        lowest=notes["lowest"],
        setbacks=tuple(Setback(*each) for each in notes["setbacks"]),
    )


def _form(array: npt.NDArray[Any] | None) -> str:
    return "absent" if array is None else f"{array.dtype}{list(array.shape)}"


def _filled(name: str, template: Any, arrays: Arrays) -> Any:
    """Return the tree with the arrays in its leaves' places."""

    def one(path: Any, leaf: Any) -> Any:
        array = jnp.array(arrays[name + jax.tree_util.keystr(path)])
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array

    return jax.tree_util.tree_map_with_path(one, template)


def _of_another(path: Path, what: str) -> OtherDescentError:
    return OtherDescentError(
        f"The checkpoint {path} is of another descent: {what}.",
        hint="Go on as it was begun, or choose another folder.",
    )


def _write(path: Path, arrays: Arrays, notes: Notes) -> None:
    """Write a file aside and rename it."""
    aside = path.parent / ".checkpoint.part"
    write_aside(aside, arrays, notes)
    rename(aside, path)


def contents(folder: Path) -> Arrays:
    """Return the arrays of the newest checkpoint, and those of its history, without what tells the time.

    Raises
    ------
    ValueError
        If there is none, or it is not whole.
    """
    newest = max(folder.glob("checkpoint-*.safetensors"), default=None)
    if newest is None:
        raise ValueError(f"{folder} has no checkpoint")
    arrays, notes, _ = read(newest)
    parts = [read(folder / Part(*part).name)[0] for part in notes["parts"]]
    names = {name for part in parts for name in part if "second" not in name}
    history = {
        f"history/{name}": np.concatenate([part[name] for part in parts if name in part]) for name in names
    }
    return arrays | history
