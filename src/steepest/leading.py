"""A fit by several processes: the first leads, and asks the others for their part.

All of them prepare their rows together. Then the first does what a fit does. The others answer with rows that
it wants to look at (`asking`, `brought`), and take part in the descent (`lead`), until it lets them go.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from steepest.callbacks import Callback
from steepest.data.gather import gathered
from steepest.data.order import Rows as Numbers
from steepest.data.packed import PackedRows
from steepest.data.shared import Fetched, Shared
from steepest.prediction import most_to_judge_by, rows_to_judge_by
from steepest.prepared import Prepared, Rows, SharedRows, Together
from steepest.process_group import ProcessGroup, leave
from steepest.settings import Settings, settings_from_json, settings_to_json
from steepest.trained import Trained, trained_by

DENSE = ("numbers", "codes")
"""The parts of packed rows that dense features are made of."""

ROWS, DESCEND, END = "rows", "descend", "end"
"""What the leading process asks for."""

START = "start"
"""The parameters that a descent starts with, among the files of its checkpoints."""

FOLLOWING = "waiting for the first worker"
"""What a process is doing that was asked for nothing."""


def _ask(group: ProcessGroup, do: str, content: bytes = b"", **what: Any) -> None:
    """Tell the other processes what to do."""
    group.exchange(json.dumps({"do": do, **what}).encode() + b"\n" + content)


def _arrays(together: Together) -> dict[str, Shared]:
    """Return all arrays that can be asked for: those of the descent, and the packed rows that they are of."""
    found: dict[str, Shared] = {}
    for part in ("training", "validation"):
        rows: SharedRows | None = getattr(together, part)
        if rows is None:
            continue
        for name in ("features", "target", "weights"):
            array = getattr(rows, name)
            if array is not None:
                found[f"{part}.{name}"] = array
        features = found[f"{part}.features"]
        packed = _packed_rows(features).packed
        for name in DENSE:
            found[f"{part}.{name}"] = replace(features, held=getattr(packed, name))
    return found


def _packed_rows(features: Shared) -> PackedRows:
    assert isinstance(features.held, PackedRows)  # noqa: S101 - preparation packs all features
    return features.held


def asking(prepared: Prepared) -> Prepared:
    """Return the same, whose rows the leading process gathers alone: the others answer."""
    if prepared.together is None:
        return prepared
    group = prepared.together.group
    rows = {name: _fetched(group, name, array) for name, array in _arrays(prepared.together).items()}

    def of(part: str) -> SharedRows:
        return SharedRows(rows[f"{part}.features"], rows[f"{part}.target"], rows.get(f"{part}.weights"))

    held_out = of("validation") if prepared.together.validation else None
    return replace(prepared, together=Together(group, of("training"), held_out))


def _fetched(group: ProcessGroup, name: str, array: Shared) -> Fetched:
    def ask(numbers: Numbers) -> None:
        _ask(group, ROWS, np.asarray(numbers, np.int64).tobytes(), of=name)

    return Fetched(array, ask)


def brought(prepared: Prepared, seed: int) -> Prepared:
    """Return the same with the rows to judge by in this process's memory."""
    if prepared.together is None:
        return prepared
    group, arrays = prepared.together.group, _arrays(prepared.together)
    parts: dict[str, Rows] = {}
    for part in ("training", "validation"):
        if f"{part}.target" not in arrays:
            continue
        held = _packed_rows(arrays[f"{part}.features"])
        count = len(arrays[f"{part}.target"])
        numbers = rows_to_judge_by(count, most_to_judge_by(held.row_bytes), seed)
        found = {
            name: gathered(_fetched(group, f"{part}.{name}", arrays[f"{part}.{name}"]), numbers)
            for name in (*DENSE, "target", "weights")
            if f"{part}.{name}" in arrays
        }
        dense = held.packed._replace(
            numbers=found["numbers"], codes=found["codes"], places=np.empty((len(numbers), 0), np.int32)
        )
        packed = PackedRows(held.layout, dense)
        drawn_from = count if len(numbers) < count else None
        parts[part] = Rows(packed, found["target"], found.get("weights"), drawn_from)
    return replace(prepared, training=parts["training"], validation=parts.get("validation"))


def lead(prepared: Prepared, settings: Settings, epochs: int, checkpoints: Path, start: Any) -> None:
    """Have the other processes begin the descent that this one begins next, from the same place."""
    if prepared.together is None:
        return
    found = sorted(checkpoints.glob("[!.]*.safetensors")) if checkpoints.is_dir() else []
    files = {file.name: file.read_bytes() for file in found}
    if start is not None:
        parts = {f"{above}/{name}": each for above, parts in start.items() for name, each in parts.items()}
        files[START] = save(parts)
    sizes = {name: len(content) for name, content in files.items()}
    asked = {"settings": settings_to_json(settings), "epochs": epochs, "files": sizes}
    _ask(prepared.together.group, DESCEND, b"".join(files.values()), **asked)


def account(prepared: Prepared, trained: Trained) -> list[dict[str, Any]] | None:
    """Return what each process had to do, and let the others go; ``None`` where there is one process."""
    if prepared.together is None:
        return None
    _ask(prepared.together.group, END)
    return _account(prepared.together, trained)


def _account(together: Together, trained: Trained) -> list[dict[str, Any]]:
    group = together.group
    first, end = _arrays(together)["training.target"].firsts[group.rank :][:2]
    epochs, alone = len(trained.epochs), trained.seconds_alone
    last = float(trained.epochs["seconds"].iloc[-1]) if epochs else 0.0
    own = {
        "worker": group.rank,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "rows": end - first,
        "rows_per_second": (end - first) / last if last else None,
        "waiting": max(0.0, 1 - alone / epochs / last) if alone and last else None,
    }
    every = [json.loads(each) for each in group.exchange(json.dumps(own).encode())]
    leave()  # what the first does next takes minutes, and none need wait for it
    return every


def follow(prepared: Prepared, callbacks: Sequence[Callback], folder: Path) -> None:
    """Do what the leading process asks for, until it lets this one go.

    Parameters
    ----------
    prepared
        What this process has of the rows.
    callbacks
        Are told of the descent.
    folder
        Where its checkpoints go.
    """
    assert prepared.together is not None  # noqa: S101 - there are other processes
    arrays = _arrays(prepared.together)
    trained = None
    answers: dict[str, Callable[..., Trained | None]] = {
        ROWS: partial(_answer, arrays),
        DESCEND: partial(_take_part, prepared, callbacks, folder),
    }
    while True:
        line, _, content = prepared.together.group.exchange(b"")[0].partition(b"\n")
        asked = json.loads(line)
        if asked["do"] == END:
            break
        trained = answers[asked.pop("do")](content, **asked) or trained
    assert trained is not None  # noqa: S101 - a fit descends before it ends
    _account(prepared.together, trained)


def _answer(arrays: dict[str, Shared], content: bytes, of: str) -> None:
    numbers = np.frombuffer(content, np.int64)
    arrays[of].gather(numbers, np.empty((len(numbers), *arrays[of].shape[1:]), arrays[of].dtype))


def _take_part(
    prepared: Prepared,
    callbacks: Sequence[Callback],
    folder: Path,
    content: bytes,
    settings: dict[str, Any],
    epochs: int,
    files: dict[str, int],
) -> Trained:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start: dict[str, dict[str, Any]] = {}
    for name, size in files.items():
        if name == START:
            for place, values in load(content[:size]).items():
                above, _, below = place.rpartition("/")
                start.setdefault(above, {})[below] = values
        else:
            (folder / Path(name).name).write_bytes(content[:size])
        content = content[size:]
    asked = settings_from_json(settings)
    trained: Trained = trained_by(asked.model).train(
        asked, prepared, epochs, callbacks, folder, start or None
    )
    return trained
