"""What is to be learned: the target's kind decides the loss, the encoding and what a prediction is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column_types import type_of
from steepest.data.summary import Summary, numbers_of, plain_values
from steepest.descent.losses import Loss, loss_by_name
from steepest.errors import SteepestError, nearest

MOST_CLASSES = 1_000
"""Texts with more different values than this are not taken for classes."""

MOST_WHOLE_NUMBER_CLASSES = 20
"""Whole numbers with more different values than this are taken for counts or numbers."""

MOST_WEIGHT = 1e15
"""No row or class may weigh more; the product of two such weights is still a float32."""

NUMERIC = ("number", "integer", "boolean")
"""Types of columns that hold numbers."""

LOSS_KINDS = {
    "mean_squared_error": "number",
    "mean_absolute_error": "number",
    "huber": "number",
    "quantile": "number",
    "poisson": "counts",
    "binary_cross_entropy": "binary",
    "hinge": "binary",
    "categorical_cross_entropy": "classes",
}

KIND_LOSSES = {
    "binary": "binary_cross_entropy",
    "classes": "categorical_cross_entropy",
    "counts": "poisson",
    "number": "mean_squared_error",
}

METRICS = {
    "binary": "accuracy",
    "classes": "accuracy",
    "counts": "mean_absolute_error",
    "number": "mean_absolute_error",
}
"""What is measured on the validation rows after each epoch, besides the loss."""

Label = bool | int | float | str


@dataclass(frozen=True)
class Task:
    """What a target asks for.

    Parameters
    ----------
    target
        The column's name.
    kind
        ``"binary"``, ``"classes"``, ``"counts"`` or ``"number"``.
    loss
        The loss's name.
    why
        A sentence for the reader: what was seen in the target, and what follows.
    labels
        The classes, in the order of their codes; the last of two is the one whose probability is predicted.
    center, deviation
        Numbers are learned as ``(target - center) / deviation``.
    baseline
        What the training rows alone predict: the share of each class, or the mean, in the target's unit.
    """

    target: str
    kind: str
    loss: str
    why: str
    labels: tuple[Label, ...] = ()
    center: float = 0.0
    deviation: float = 1.0
    baseline: tuple[float, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of outputs that a model for this task has."""
        return len(self.labels) if self.kind == "classes" else 1


def learn_task(name: str, everything: Summary, training: Summary, loss: str | None) -> Task:
    """Decide what the target asks for.

    Parameters
    ----------
    name
        The target's name.
    everything
        The summary of all its values, all finite and none missing: their type is judged, and the classes are
        listed, over all of them.
    training
        The summary of the training rows' values; the baseline and the scale come from these alone.
    loss
        A loss by name, or ``None`` for the one that fits.

    Raises
    ------
    SteepestError
        If there is nothing to learn, or the loss does not fit the target.
    """
    _refuse(name, everything)
    kind, seen = _kind(name, everything)
    if loss is not None:
        kind = _agree(name, kind, everything, loss)
    chosen = loss or KIND_LOSSES[kind]
    why = f"{name!r} holds {seen}: {_KIND_TITLES[kind]}, {chosen.replace('_', ' ')}" + (
        " as asked" if loss else ""
    )
    if training.minimum == training.maximum:
        raise _one_value(name, _plain(training.minimum))
    if kind in ("binary", "classes"):
        assert everything.value_counts is not None  # noqa: S101 - classes are few
        assert training.value_counts is not None  # noqa: S101
        classes = sorted(everything.value_counts)
        shares = tuple(training.value_counts.get(value, 0) / training.rows for value in classes)
        return Task(name, kind, chosen, why, tuple(map(_plain, classes)), baseline=shares)
    mean, squares = training.mean or 0.0, training.squared_deviation or 0.0
    deviation = math.sqrt(squares / training.rows)
    if not 0 < deviation < math.inf:
        raise SteepestError(
            f"The target {name!r} holds numbers from {training.minimum:.4g} to {training.maximum:.4g}, which "
            f"are too {'small' if deviation == 0 else 'large'} to compute with.",
            hint="Give it in another unit.",
        )
    if kind == "counts":
        return Task(name, kind, chosen, why, baseline=(mean,))
    return Task(name, kind, chosen, why, center=mean, deviation=deviation, baseline=(mean,))


def _one_value(name: str, value: object) -> SteepestError:
    return SteepestError(
        f"The training rows' target {name!r} is always {value}; there is nothing to learn.",
        hint="Hold fewer rows out, or draw others with another --seed.",
    )


_KIND_TITLES = {
    "binary": "two classes",
    "classes": "several classes",
    "counts": "counts",
    "number": "a number",
}


def _plain(value: Any) -> Label:
    """Return a label as JSON and Arrow hold it: whole numbers as int."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse(name: str, summary: Summary) -> None:
    """Refuse targets that nothing can be learned from."""
    if summary.value_counts is not None and len(summary.value_counts) == 1:
        (value,) = summary.value_counts
        raise SteepestError(
            f"The target {name!r} has one value only, {_plain(value)!r}, in all {summary.rows:,} rows; "
            "there is nothing to learn.",
            hint="Name another target, or add rows with other values.",
        )
    if summary.type not in (*NUMERIC, "string"):
        raise SteepestError(
            f"The target {name!r} holds {summary.type} values; a target holds numbers or classes.",
            hint="Turn it into a number first.",
        )


def _kind(name: str, summary: Summary) -> tuple[str, str]:
    """Return the kind that the target's values suggest, and what was seen."""
    counts = summary.value_counts
    different = len(counts) if counts is not None else None
    if different == 2:
        return "binary", "two values"
    if summary.type == "string":
        if different is None or different > MOST_CLASSES or different * 2 > summary.rows:
            raise SteepestError(
                f"The target {name!r} holds {f'{different:,}' if different else 'over 100,000'} texts "
                f"in {summary.rows:,} rows, which are hardly classes.",
                hint="Name another target.",
            )
        return "classes", f"{different} different texts"
    whole = summary.type == "integer" or (counts is not None and all(float(v).is_integer() for v in counts))
    if not whole:
        return "number", "real numbers"
    low, high = summary.minimum, summary.maximum
    seen = f"whole numbers from {low:,.0f} to {high:,.0f}"
    if different is not None and different <= MOST_WHOLE_NUMBER_CLASSES and summary.rows >= 10 * different:
        return "classes", f"{different} different {seen.removeprefix('whole ')}"
    return ("counts" if low >= 0 else "number"), seen


def _agree(name: str, kind: str, summary: Summary, loss: str) -> str:
    """Return the kind that the loss learns, if the target can be learned so."""
    wanted = LOSS_KINDS[loss_by_name(loss).name]
    numeric = summary.type != "string"
    different = len(summary.value_counts) if summary.value_counts is not None else np.inf
    fits, needs = {
        "number": (numeric, "numbers"),
        "counts": (numeric and summary.type != "boolean" and summary.minimum >= 0, "numbers from 0 up"),
        "binary": (different == 2, "two values"),
        "classes": (different <= MOST_CLASSES, f"at most {MOST_CLASSES:,} classes"),
    }[wanted]
    if not fits:
        raise SteepestError(
            f"The loss {loss} needs {needs}, which the target {name!r} does not hold.",
            hint=f"Leave --loss out to have {KIND_LOSSES[kind]}.",
        )
    return wanted


def encode_target(
    task: Task, target: pa.ChunkedArray, locate: Callable[[int], str] | None = None
) -> npt.NDArray[Any]:
    """Return the target as the loss takes it: codes, or scaled numbers.

    Parameters
    ----------
    task
        See `learn_task`.
    target
        Values, none missing.
    locate
        Names the place of a row, for errors.

    Returns
    -------
    numpy.ndarray
        ``[rows]``: float32, or int32 codes for several classes.

    Raises
    ------
    SteepestError
        If a value is not among the classes, or is no number.
    """
    if task.labels:
        codes = _codes(task, target, locate)
        return codes.astype(np.int32 if task.kind == "classes" else np.float32)
    if type_of(target.type) not in NUMERIC:
        raise SteepestError(
            f"The target {task.target!r} holds {target.type}; the run was trained on numbers."
        )
    return ((numbers_of(plain_values(target)) - task.center) / task.deviation).astype(np.float32)


def _codes(task: Task, target: pa.ChunkedArray, locate: Callable[[int], str] | None) -> npt.NDArray[np.int64]:
    values = plain_values(target)
    numeric = not isinstance(task.labels[0], str)
    textual = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if numeric == textual:
        raise SteepestError(
            f"The target {task.target!r} holds {values.type}; the run's classes are {task.labels[:5]}."
        )
    wanted = pa.array(np.asarray(task.labels, np.float64) if numeric else task.labels)
    known = pa.array(numbers_of(values)) if numeric else pc.cast(values, wanted.type)
    codes = pc.index_in(known, wanted)
    if codes.null_count:
        row = int(np.flatnonzero(np.asarray(pc.is_null(codes)))[0])
        where = f" ({locate(row)})" if locate else ""
        raise SteepestError(
            f"The target {task.target!r} holds {values[row].as_py()!r}{where}, which is none of the classes "
            f"that were trained on: {', '.join(map(str, task.labels[:8]))}."
        )
    return np.asarray(codes, np.int64)


def output_bias(task: Task) -> npt.NDArray[np.float64]:
    """Return where a model's last bias starts: the output that predicts the baseline.

    Examples
    --------
    >>> output_bias(Task("y", "binary", "binary_cross_entropy", "", (0, 1), baseline=(0.5, 0.5)))
    array(0.)
    """
    base = np.asarray(task.baseline)
    if task.kind == "number" or task.loss == "hinge":
        return np.zeros(())
    if task.kind == "counts":
        return np.asarray(np.log(max(base[0], 1e-3)))
    logs = np.log(np.clip(base, 1e-6, None))
    return logs - logs.mean() if task.kind == "classes" else np.asarray(logs[1] - logs[0])


def predictions(task: Task, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return what outputs predict: probabilities ``[rows]`` or ``[rows, classes]``, or numbers ``[rows]``."""
    values = np.asarray(loss_of(task).predict(jnp.asarray(outputs)), np.float64)
    if task.kind == "classes":
        values /= values.sum(axis=1, keepdims=True)
    elif task.kind == "number":
        values = values * task.deviation + task.center
    return values


def true_values(task: Task, encoded: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return encoded targets as codes, or as numbers in the target's own unit."""
    if task.kind == "number":
        return encoded.astype(np.float64) * task.deviation + task.center
    return encoded.astype(np.float64)


def metric(task: Task, outputs: jax.Array, encoded: jax.Array) -> jax.Array:
    """Return each row's part of the task's metric: right or wrong, or the error in the target's unit."""
    if task.kind == "binary":
        return ((outputs > 0) == (encoded > 0.5)).astype(outputs.dtype)
    if task.kind == "classes":
        return (outputs.argmax(axis=1) == encoded).astype(outputs.dtype)
    return abs(loss_of(task).predict(outputs) - encoded) * task.deviation


def loss_of(task: Task) -> Loss:
    """Return the task's loss."""
    return loss_by_name(task.loss)


def class_weights(task: Task, wanted: str | None) -> npt.NDArray[np.float64] | None:
    """Return a weight for each class: ``rows / (classes · rows of the class)`` if "balanced".

    Parameters
    ----------
    task
        See `learn_task`.
    wanted
        ``"balanced"``, ``"label=weight,..."`` (other labels weigh 1), or ``None``.

    Raises
    ------
    SteepestError
        If the target has no classes, or the text makes no sense.

    Examples
    --------
    >>> task = Task("y", "binary", "binary_cross_entropy", "", ("no", "yes"), baseline=(0.8, 0.2))
    >>> class_weights(task, "balanced").tolist(), class_weights(task, "yes=3").tolist()
    ([0.625, 2.5], [1.0, 3.0])
    """
    if wanted is None:
        return None
    if not task.labels:
        raise SteepestError(
            f"--class-weight needs a target with classes; {task.target!r} is {_KIND_TITLES[task.kind]}."
        )
    if wanted == "balanced":
        shares = np.asarray(task.baseline)
        return np.where(shares > 0, 1.0 / (len(shares) * np.maximum(shares, 1e-300)), 0.0)
    weights = np.ones(len(task.labels))
    names = [str(label) for label in task.labels]
    for part in wanted.split(","):
        label, equals, weight = part.rpartition("=")
        if not equals:
            raise SteepestError(
                f"--class-weight holds {part!r}, which gives no class a weight.",
                hint="Write balanced, or LABEL=WEIGHT,LABEL=WEIGHT.",
            )
        if label not in names:
            raise SteepestError(
                f"--class-weight names {label!r}, which is no class.", hint=nearest(label, names)
            )
        weights[names.index(label)] = _class_weight(label, weight)
    if not weights.any():
        raise SteepestError("--class-weight gives every class the weight 0.")
    return weights


def _class_weight(label: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= MOST_WEIGHT:
        raise SteepestError(
            f"--class-weight gives {label!r} the weight {text!r}; weights lie between 0 and {MOST_WEIGHT:g}."
        )
    return weight


def task_from_json(record: Mapping[str, Any]) -> Task:
    """Return a task from what ``dataclasses.asdict`` made of it."""
    lists = {name: tuple(record[name]) for name in ("labels", "baseline")}
    return Task(**{**record, **lists})
