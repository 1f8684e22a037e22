"""What a model does in Spark's Python workers: from batches of rows to predictions."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest.run import Run
from steepest.spark.vectors import flattened

NEEDED = ("model.json", "model.safetensors", "columns.json")


@dataclass(frozen=True)
class Carried:
    """What predicting takes of a run's folder, as it travels to the workers.

    Parameters
    ----------
    digest
        Of the files; two with the same digest are the same.
    files
        Name -> content.
    """

    digest: str
    files: Mapping[str, bytes] = field(compare=False, repr=False)


def carried(run: Run) -> Carried:
    """Return what predicting takes of a run."""
    files = {name: (run.path / name).read_bytes() for name in NEEDED}
    return Carried(hashlib.sha256(b"".join(files.values())).hexdigest(), files)


@functools.lru_cache(maxsize=4)  # a worker serves many tasks, and compiled programs stay with the model
def opened(model: Carried) -> Run:
    """Return the run that these files are of, all that predicting takes of it being read."""
    with tempfile.TemporaryDirectory(prefix="steepest-") as folder:
        for name, content in model.files.items():
            (Path(folder) / name).write_bytes(content)
        run = Run(Path(folder))
        _ = run.task, run.plan, run.model, run.parameters
    return run


def predicting(
    model: Carried, names: Sequence[str], vectors: Mapping[str, tuple[str, ...]], zone: str
) -> Callable[[Iterator[pa.Array]], Iterator[pa.Array]]:
    """Return the function that Spark's Python workers call.

    Parameters
    ----------
    model
        What predicts.
    names
        The names of the columns in the structs that it is given.
    vectors
        See `steepest.spark.vectors.flattened`.
    zone
        The time zone by whose clock timestamps were learned.

    Returns
    -------
    callable
        Batches of structs of columns -> as many batches of structs of ``prediction`` and, for classes,
        ``probability`` and ``rawPrediction``.
    """

    def predict(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        run = opened(model)
        for batch in batches:
            rows = pa.Table.from_arrays(
                [_by_clock(each, zone) for each in batch.flatten()], names=list(names)
            )
            yield answers(run, flattened(rows, vectors))

    return predict


def _by_clock(column: pa.Array, zone: str) -> pa.Array:
    """Return timestamps as seen from a time zone."""
    kind = column.type
    timed = pa.types.is_timestamp(kind) and kind.tz is not None
    return column.cast(pa.timestamp(kind.unit, zone)) if timed else column


def answers(run: Run, rows: pa.Table) -> pa.StructArray:
    """Return what a model says of rows, as `predicting` does."""
    from steepest import tasks
    from steepest.data.packed import packed_rows
    from steepest.prediction import outputs_of, prediction_table

    task = run.task
    kind = label_type(task.labels)
    if not rows.num_rows:
        fields = [("prediction", kind)]
        lists = [(name, pa.list_(pa.float64())) for name in ("probability", "rawPrediction") if task.labels]
        return pa.array([], pa.struct([*fields, *lists]))
    outputs = outputs_of(run.model, run.parameters, packed_rows(run.plan.layout, run.plan.pack(rows)))
    predicted = tasks.predictions(task, outputs)
    found = {"prediction": prediction_table(task, predicted)["prediction"].combine_chunks().cast(kind)}
    if task.labels:
        binary = task.kind == "binary"
        found["probability"] = _lists(np.stack([1 - predicted, predicted], 1) if binary else predicted)
        found["rawPrediction"] = _lists(np.stack([-outputs, outputs], 1) if binary else outputs)
    return pa.StructArray.from_arrays(list(found.values()), list(found))


def label_type(labels: Sequence[object]) -> pa.DataType:
    """Return the type of predictions: Spark ML's double, but for classes of text or of booleans.

    Examples
    --------
    >>> label_type((1, 2)), label_type(("no", "yes")), label_type(())
    (DataType(double), DataType(string), DataType(double))
    """
    kinds = {str: pa.string(), bool: pa.bool_()}
    return kinds.get(type(labels[0]), pa.float64()) if labels else pa.float64()


def _lists(matrix: npt.NDArray[np.floating]) -> pa.ListArray:
    rows, width = matrix.shape
    ends = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.ascontiguousarray(matrix, np.float64).ravel())
