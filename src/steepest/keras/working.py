"""One process's part in the fit of a Keras model by several: see `steepest.worker`.

The process of rank 0 keeps the backups in the shared storage, each attempt's apart. The last one holds what
the fit ended with: the weights, the optimizer's variables, every step's loss and the history.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa

from steepest.descent.stopping import Patience
from steepest.errors import SteepestError, nearest
from steepest.keras.columns import Columns, missing, require_all
from steepest.keras.failures import NotFiniteError
from steepest.keras.resume import FILE, Backup
from steepest.keras.shipping import unpack
from steepest.keras.stored import gist
from steepest.keras.tables import early_stopping
from steepest.keras.together import Table, fit_together
from steepest.mirroring import ATTEMPTS, Mirror, Progress
from steepest.process_group import ProcessGroup, leave
from steepest.settings import Settings, settings_from_json
from steepest.storage import Storage, storage_at
from steepest.tasks import Task, class_weights
from steepest.worker import RUN, Job

NETWORK = "network"
"""The name of the model in the shared storage."""


def work(job: Job, group: ProcessGroup, progress: Progress) -> None:
    """Do what the job says.

    Raises
    ------
    SteepestError
        If the rows or the model can't be used, or the descent fails.
    """
    assert job.keras is not None  # noqa: S101 - it is a job for a Keras model
    assert job.rows is not None  # noqa: S101 - Spark gives the rows
    settings, folder, storage = settings_from_json(job.settings), Path(job.folder), storage_at(job.shared)
    storage.get(NETWORK, folder / NETWORK)
    model = unpack(folder / NETWORK, job.keras["modules"])
    columns = Columns.from_json(job.keras["columns"])
    progress.on_rows_seen("reading the rows", 0, None)
    with pa.ipc.open_file(pa.memory_map(job.rows)) as file:
        rows = file.read_all()
    told = [json.loads(each) for each in group.exchange(json.dumps(missing(rows)).encode())]
    require_all(told)
    training, held_out = _tables(group, columns, settings, rows)
    backup = Backup(folder / "backup", None, keeps_previous=False, deletes=False)
    if job.rank == 0:
        _restore(storage, job.attempt, backup)
        backup.written = _Keeping(storage, job.attempt, settings.checkpoint_every)
    _share(group, backup)
    content = _content(group, rows)
    telling = nullcontext() if job.rank else Mirror(storage, job.attempt, folder / RUN, progress)
    with telling:
        _fit(model, group, settings, training, held_out, backup, content, progress)
    leave()
    progress.on_descent_end(None)
    if job.rank == 0:
        storage.put(backup.folder / FILE, f"{RUN}/{FILE}", replace=True)


def _fit(
    model: keras.Model,
    group: ProcessGroup,
    settings: Settings,
    training: Table,
    held_out: Table | None,
    backup: Backup,
    content: str,
    progress: Progress,
) -> None:
    count = sum(_counts(group, len(training[1])))
    size = count if settings.batch_size == "all" else int(settings.batch_size)
    rule = None if settings.patience is None else Patience(settings.patience, settings.monitor)
    epochs = settings.epochs or 1
    telling = _Telling(progress, epochs, count, rule)
    try:
        fit_together(
            *(model, group, training, held_out),
            batch_size=size,
            epochs=epochs,
            seed=settings.seed,
            callbacks=[telling, *early_stopping(rule)],
            backup=backup,
            content=content,
        )
    except NotFiniteError as error:
        if error.blame is None:
            raise
        hint = "Try a lower learning rate or clipnorm; your model is as it was before the fit."
        raise SteepestError(error.what, hint=hint) from error
    except ValueError as error:
        raise SteepestError(f"Keras can't train the model: {gist(error)}") from error


class _Telling(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells how far the fit is, and refuses to wait for a figure that there is not."""

    def __init__(self, progress: Progress, epochs: int, rows: int, rule: Patience | None) -> None:
        super().__init__()
        self.progress, self.rule = progress, rule
        progress.on_descent_begin(epochs, rows)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.progress.doing = f"epoch {epoch + 1}"

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        figures = {name.replace("val_", "validation_", 1): value for name, value in (logs or {}).items()}
        if self.rule and self.rule.monitor not in figures:
            raise SteepestError(
                f"No epoch has a figure {self.rule.monitor!r} to monitor.",
                hint=nearest(self.rule.monitor, list(figures)),
            )
        self.progress.on_epoch_end({"epoch": epoch + 1, **figures})


class _Keeping:
    """Brings backups to a storage, as often as asked for."""

    def __init__(self, storage: Storage, attempt: int, every: float) -> None:
        self.storage, self.name, self.every = storage, f"{ATTEMPTS}/{attempt:04}/{FILE}", every
        self.last = time.monotonic()

    def __call__(self, path: Path) -> None:
        if time.monotonic() - self.last >= self.every:
            self.storage.put(path, self.name, replace=True)
            self.last = time.monotonic()


def _restore(storage: Storage, attempt: int, backup: Backup) -> None:
    """Bring the newest backup of an earlier attempt here, if there is one."""
    for earlier in sorted(storage.names(f"{ATTEMPTS}/"), reverse=True):
        if int(Path(earlier).name) < attempt and storage.exists(f"{earlier}/{FILE}"):
            backup.folder.mkdir()
            storage.get(f"{earlier}/{FILE}", backup.folder / FILE)
            return


def _share(group: ProcessGroup, backup: Backup) -> None:
    """Give all processes the backup of the first, if it has one."""
    path = backup.folder / FILE
    content = group.exchange(path.read_bytes() if path.exists() else b"")[0]
    if content and group.rank:
        backup.folder.mkdir()
        path.write_bytes(content)


def _counts(group: ProcessGroup, own: int) -> list[int]:
    """Return what each process counted."""
    return [int(each) for each in group.exchange(str(own).encode())]


def _content(group: ProcessGroup, rows: pa.Table) -> str:
    """Return a number that depends on all values and on the order of the rows, not on who has them."""
    first = sum(_counts(group, len(rows))[: group.rank])
    number = 2 * np.arange(first, first + len(rows), dtype=np.uint64)[:, None] + 1
    total = 0
    for place, name in enumerate(rows.column_names):
        column = rows.column(name).combine_chunks()
        values = column.flatten() if pa.types.is_list(column.type) else column
        bits = values.cast("float64", safe=False).to_numpy(zero_copy_only=False).view(np.uint64)
        bits = bits.reshape(len(rows), len(bits) // max(1, len(rows)))
        mixed = (bits ^ (bits >> 29)) * np.uint64(0x9E3779B97F4A7C15)
        element = 2 * np.arange(bits.shape[1], dtype=np.uint64) + 1
        total += int(((mixed ^ (mixed >> 32)) * element * number).sum(dtype=np.uint64)) * (2 * place + 1)
    return str(sum(_counts(group, total % 2**64)) % 2**64)


def _tables(
    group: ProcessGroup, columns: Columns, settings: Settings, rows: pa.Table
) -> tuple[Table, Table | None]:
    """Return this process's rows to train and to validate on."""
    if columns.held_out is not None:
        out = np.asarray(rows.column(columns.held_out).combine_chunks()).astype(bool)
    else:
        counts = _counts(group, len(rows))
        split = int(sum(counts) * (1.0 - float(settings.validation)))
        out = np.arange(len(rows)) + sum(counts[: group.rank]) >= split
    held_out = sum(_counts(group, int(out.sum())))
    training = sum(_counts(group, len(rows))) - held_out
    if not training or (not held_out and settings.holds_out):
        raise SteepestError(
            f"There are {training:,} rows to train on and {held_out:,} to validate on.",
            hint="Hold out another part of the rows.",
        )
    own, others = (_table(columns, rows.filter(pa.array(each))) for each in (~out, out))
    if settings.class_weight is not None:
        own = (*own[:2], _by_class(group, settings.class_weight, own[1]))
    return own, others if held_out else None


def _by_class(group: ProcessGroup, wanted: str, target: np.ndarray) -> np.ndarray:
    """Return the weight of each row by its class: a whole number, or the greatest of several outputs."""
    classes = target.argmax(axis=1) if target.ndim > 1 else np.round(target).astype(np.int64)
    values, counts = np.unique(classes, return_counts=True)
    own = dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
    every = Counter[str]()
    for each in group.exchange(json.dumps(own).encode()):
        every.update(json.loads(each))
    named = [] if wanted == "balanced" else [part.rpartition("=")[0] for part in wanted.split(",")]
    labels = tuple(dict.fromkeys([*every, *filter(str.isdecimal, named)]))  # no row need be of a class
    shares = tuple(every[label] / every.total() for label in labels)
    task = Task("the target", "classes", "", "", labels, baseline=shares)
    weights = class_weights(task, wanted)
    assert weights is not None  # noqa: S101 - some are wanted
    by_class = dict(zip(map(int, labels), weights.tolist(), strict=True))
    return np.array([by_class[each] for each in classes.tolist()], np.float32)


def _table(columns: Columns, rows: pa.Table) -> Table:
    weights = None if columns.weights is None else rows.column(columns.weights).to_numpy().astype(np.float32)
    return columns.x(rows), columns.y(rows), weights
