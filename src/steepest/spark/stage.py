"""What one task of the barrier stage does: it keeps its rows, meets the others, and watches over a worker.

The worker is a process of its own, because JAX joins a group once in a process's life, and ends its process
when another one of the group is lost.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

import steepest
from steepest import worker
from steepest.errors import SteepestError
from steepest.leading import FOLLOWING
from steepest.spark.vectors import flattened

MARK = "steepest-error:"
"""Stands before an error for a person in what Spark says of a failed task."""

SILENT = 30.0
"""Seconds without a line after which a worker is taken for stopped."""

ERRORS = "errors"
"""The file of a worker's standard error."""

PACKAGES = ("steepest", "jax", "numpy", "python")
"""What must be of one version everywhere."""

RESULT = "worker int"
"""The columns of what a task yields, as Spark writes them."""


class WorkerError(RuntimeError):
    """A worker was lost, which says nothing against the rows: the fit may be begun again."""


@dataclass(frozen=True)
class Task:
    """What all tasks of an attempt have in common.

    Parameters
    ----------
    settings, shared, attempt
        See `steepest.worker.Job`.
    columns, vectors, schema
        Of the rows, if Spark gives them: names in order, see `steepest.spark.vectors.flattened`, and what
        comes of it, serialised.
    keras, files
        See `steepest.worker.Job`.
    stalled
        Seconds without any progress after which a worker is taken for stuck.
    versions
        Those of the driver.
    """

    settings: dict[str, Any]
    shared: str
    attempt: int
    stalled: float
    versions: dict[str, str]
    columns: tuple[str, ...] = ()
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    schema: bytes | None = None
    keras: dict[str, Any] | None = None
    files: tuple[str, ...] = ()

    def on_batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Fit on the rows that Spark gives: what `pyspark.sql.DataFrame.mapInArrow` calls."""
        with _told(), _place() as folder, _begun(folder) as child:
            rows = folder / "rows.arrow"
            self._keep(batches, rows)
            rank = self._fit(child, folder, str(rows))
        yield pa.RecordBatch.from_pydict({"worker": pa.array([rank], pa.int32())})

    def on_files(self, _: Iterable[int]) -> Iterable[int]:
        """Fit on a share of files: what `pyspark.RDDBarrier.mapPartitions` calls."""
        with _told(), _place() as folder, _begun(folder) as child:
            yield self._fit(child, folder, None)

    def _keep(self, batches: Iterator[pa.RecordBatch], path: Path) -> None:
        """Write the rows to the local disk as they come."""
        schema = pa.ipc.read_schema(pa.py_buffer(self.schema))
        with pa.ipc.new_file(str(path), schema) as writer:
            for batch in batches:
                if batch.num_rows:
                    rows = pa.Table.from_batches([batch]).rename_columns(self.columns)
                    writer.write_table(flattened(rows, self.vectors).cast(schema))

    def _fit(self, child: subprocess.Popen[bytes], folder: Path, rows: str | None) -> int:
        from pyspark import BarrierTaskContext

        context = BarrierTaskContext.get()
        rank, addresses = context.partitionId(), context.getTaskInfos()
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        said = {"port": port, "versions": {name: _version(name) for name in self.versions}}
        met = [json.loads(each) for each in context.allGather(json.dumps(said))]
        self._require_same([each["versions"] for each in met])
        coordinator = f"{addresses[0].address.split(':')[0]}:{met[0]['port']}"
        size = len(addresses)
        job = worker.Job(
            rank=rank,
            size=size,
            coordinator=coordinator,
            settings=self.settings,
            rows=rows,
            folder=str(folder),
            shared=self.shared,
            attempt=self.attempt,
            keras=self.keras,
            files=self.files,
            columns=self.columns,
        )
        _give(child, job)
        said = _watch(child, rank, self.stalled)
        if "error" in said:
            raise worker.from_told(said)
        if child.returncode:
            raise WorkerError(f"worker {rank} {_ended(child.returncode, folder / ERRORS)}")
        return rank

    def _require_same(self, met: list[dict[str, str]]) -> None:
        """Refuse workers whose packages are of other versions than the driver's."""
        for rank, theirs in enumerate(met):
            for name, version in self.versions.items():
                if theirs[name] != version:
                    raise SteepestError(
                        f"Worker {rank} has {name} {theirs[name]}; the driver has {version}.",
                        hint="Ship one environment to all: docs/spark.md says how.",
                    )


def versions(keras: bool = False) -> dict[str, str]:
    """Return the versions here of the packages that must be the same everywhere."""
    return {name: _version(name) for name in (*PACKAGES, *(("keras",) if keras else ()))}


def _version(name: str) -> str:
    if name == "python":
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    if name == "steepest":
        return steepest.__version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of no version"


@contextmanager
def _told() -> Iterator[None]:
    """Mark an error, so that the driver finds it in what Spark makes of it."""
    try:
        yield
    except SteepestError as error:
        raise RuntimeError(f"{MARK}{json.dumps(worker.as_told(error))}\n") from None
    except WorkerError:
        raise
    except Exception as error:
        from pyspark import TaskContext

        context: Any = TaskContext.get()
        rank = context.partitionId()
        raise WorkerError(f"worker {rank} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _place() -> Iterator[Path]:
    """Give a folder among this executor's files, which go when it does."""
    from pyspark import SparkFiles

    root = Path(SparkFiles.getRootDirectory())
    with tempfile.TemporaryDirectory(prefix="steepest-", dir=root if root.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def _begun(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the worker, which gets ready while the rows come; at the end it ends."""
    command = [sys.executable, "-m", "steepest.worker"]
    path = os.pathsep.join(filter(None, sys.path))  # with what Spark has brought here
    environment = {**os.environ, "STEEPEST_CACHE": str(folder / "cache"), "PYTHONPATH": path}
    pipe = subprocess.PIPE
    with (
        (folder / ERRORS).open("wb") as errors,
        subprocess.Popen(  # noqa: S603 - this package's own module
            command, stdin=pipe, stdout=pipe, stderr=errors, env=environment
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _give(child: subprocess.Popen[bytes], job: worker.Job) -> None:
    assert child.stdin is not None  # noqa: S101 - it is a pipe
    with suppress(BrokenPipeError):  # why it ended is told to who waits for it
        child.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
        child.stdin.flush()


def _ended(code: int, errors: Path) -> str:
    """Say in one line how a worker ended."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    lines = errors.read_text("utf-8", "replace").strip().split("\n")
    return f"ended with {code}: {lines[-1][:500]}"


def _watch(process: subprocess.Popen[bytes], rank: int, stalled: float) -> dict[str, Any]:
    """Read what the worker says until it ends; return the error that it told, if it did.

    Raises
    ------
    WorkerError
        If it is stopped or stuck.
    """
    lines: queue.Queue[bytes] = queue.Queue()
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    threading.Thread(target=_read, args=[process.stdout, lines], daemon=True).start()
    count, since = -1, time.monotonic()
    while True:
        try:
            line = lines.get(timeout=SILENT)
        except queue.Empty:
            raise WorkerError(f"worker {rank} said nothing for {SILENT:g} s and was ended") from None
        if not line:
            process.wait()
            return {}
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            return said
        if said.get("count", count) != count or said.get("doing") == FOLLOWING:
            count, since = said.get("count", count), time.monotonic()
        elif time.monotonic() - since > stalled:
            raise WorkerError(f"worker {rank} made no progress for {stalled:g} s ({said.get('doing')})")


def _read(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")
