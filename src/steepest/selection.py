"""Which columns to learn from: those that a linear model takes up first as an L1 penalty is lowered.

A path of linear models is fitted on a sample of the training rows, from a penalty that keeps every weight at
zero down to one that hardly matters, each from the model before. A column counts as taken up once any of its
features has a weight. The rows held out for validation are not looked at: a part of the sample judges.

Source: R. Tibshirani, "Regression shrinkage and selection via the lasso", 1996; the rule of one standard
error is that of L. Breiman et al., *Classification and Regression Trees*, 1984.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest import tasks
from steepest.data.columns import Dropped, Plan
from steepest.data.order import generator, permutation
from steepest.descent.models import linear
from steepest.descent.optimizers import Adam
from steepest.descent.schedules import cosine
from steepest.errors import SteepestError
from steepest.minimization import minimize

MOST_ROWS, CELLS = 50_000, 2**22
"""Rows of the sample, at most, and its features' cells."""

HELD_OUT = 0.2
"""The share of the sample that judges."""

STRENGTHS, WEAKEST = 24, 1e-3
"""How many penalties there are, and the last of them as a part of the first."""

STEPS, RATE = 60, 0.2
"""Steps of batch descent for each penalty, and the rate that they begin with."""

SELECTING, JUDGING = 0x5E1EC7, 0x5E1EC8
"""The purposes of the streams that draw the sample, and the part of it that judges."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Sample:
    """Encoded training rows.

    Parameters
    ----------
    features
        float32 [rows, features].
    target
        See `steepest.tasks.encode_target`.
    weights
        Row weights [rows].
    """

    features: npt.NDArray[np.float32]
    target: npt.NDArray[Any]
    weights: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.int64]) -> Sample:
        """Return some of the rows."""
        return Sample(self.features[rows], self.target[rows], self.weights[rows])


class Selection(NamedTuple):
    """Which columns were chosen, and what it cost.

    Attributes
    ----------
    plan
        The plan of the chosen columns; the others are among its dropped ones.
    record
        What is to be said of it, in JSON types: ``asked``, ``rows`` (of the sample that learned),
        ``rows_held_out`` (of the sample), ``columns`` (as they were taken up), ``left_out``, ``stay`` (those
        of sparse features), ``loss`` (its name), ``path`` (of each penalty the ``strength``, how many
        ``columns`` it took up, and the held-out ``loss``), ``strength`` (the one chosen), and held-out losses
        at the best penalty: ``of_all``, ``of_chosen`` and ``of_none`` of the columns.
    """

    plan: Plan
    record: dict[str, Any]


def select(wanted: int | str, task: tasks.Task, plan: Plan, sample: Sample, seed: int) -> Selection:
    """Choose among the columns of dense features; those of sparse ones stay.

    Parameters
    ----------
    wanted
        How many columns at most, or ``"auto"``: those of the strongest penalty whose loss on the held-out
        part of the sample is within one standard error of the best one's.
    task, plan
        What was learned of target and columns.
    sample
        Training rows, encoded with the plan.
    seed
        Draws the part of the sample that judges.

    Raises
    ------
    SteepestError
        If no column has dense features alone.
    """
    sparse = [number for number, column in enumerate(plan.columns) if column.sparse]
    if len(sparse) == len(plan.columns):
        raise SteepestError(
            "--select has nothing to choose from: text, lists and large categories are not chosen among.",
            hint="Leave --select out.",
        )
    order = permutation(generator(seed, JUDGING).bit_generator, len(sample.target))
    held = max(1, round(HELD_OUT * len(order)))
    scaled = _scaled(sample)
    learning, judging = scaled.take(order[held:]), scaled.take(order[:held])
    linear_models = _LinearModels(task, learning)
    path = _path(linear_models, judging, _owners(plan), len(plan.columns))
    means = path.means(judging.weights)
    best, simplest = int(means.argmin()), path.simplest(judging.weights)
    entered = [column for column in path.order_of_entry() if column not in sparse]
    if wanted == "auto":
        chosen = [column for column in entered if path.largest[simplest, column] > 0] or entered[:1]
    else:
        chosen = entered[: int(wanted)]
    kept = np.isin(_owners(plan), chosen).astype(np.float32)
    again = linear_models.fit(path.parameters[best], float(path.strengths[best]), kept)
    names = [column.name for column in plan.columns]
    record = {
        "asked": wanted,
        "rows": len(learning.target),
        "rows_held_out": len(judging.target),
        "columns": [names[column] for column in chosen],
        "left_out": [name for column, name in enumerate(names) if column not in (*chosen, *sparse)],
        "stay": [names[column] for column in sparse],
        "loss": task.loss,
        "path": {
            "strength": path.strengths.tolist(),
            "columns": (path.largest > 0).sum(1).tolist(),
            "loss": means.tolist(),
        },
        "strength": float(path.strengths[simplest]) if wanted == "auto" else None,
        "of_all": float(means[best]),
        "of_chosen": _mean(linear_models.losses(again, judging, kept), judging.weights),
        "of_none": _mean(linear_models.losses(linear_models.start, judging), judging.weights),
    }
    return Selection(_without(plan, {*chosen, *sparse}), record)


@dataclass(frozen=True)
class _Path:
    """What came of each penalty, from the strongest to the weakest.

    Parameters
    ----------
    strengths
        [penalties].
    largest
        The largest weight of each column, [penalties, columns].
    losses
        Of each held-out row, [penalties, rows].
    parameters
        Of each penalty's model.
    """

    strengths: Floats
    largest: Floats
    losses: Floats
    parameters: list[Any]

    def means(self, weights: Floats) -> Floats:
        """Return the mean held-out loss of each penalty."""
        return np.asarray(np.average(self.losses, axis=1, weights=weights))

    def order_of_entry(self) -> list[int]:
        """Return the columns that were taken up, the first first; together, by their largest weight."""
        first = np.where((self.largest > 0).any(0), (self.largest > 0).argmax(0), len(self.strengths))
        at_entry = self.largest[np.minimum(first, len(self.strengths) - 1), np.arange(len(first))]
        order = np.lexsort((-at_entry, first))
        return [int(column) for column in order if first[column] < len(self.strengths)]

    def simplest(self, weights: Floats) -> int:
        """Return the strongest penalty whose loss is within one standard error of the best one's."""
        means = self.means(weights)
        best = int(means.argmin())
        deviations = weights * (self.losses[best] - means[best])
        error = np.sqrt((deviations**2).sum()) / weights.sum()
        return int(np.argmax(means <= means[best] + error))


class _LinearModels:
    """Linear models of one sample, whatever the penalty; all of them share one compiled program."""

    def __init__(self, task: tasks.Task, sample: Sample) -> None:
        width = sample.features.shape[1]
        self._sample = sample
        self._per_row = tasks.loss_of(task).per_row
        self._model = linear(width, task.outputs, output_bias=tasks.output_bias(task))
        drawn = self._model.init(jax.random.key(0))["layer_1"]
        self.start = {"layer_1": {"weights": jnp.zeros_like(drawn["weights"]), "bias": drawn["bias"]}}
        self._data = {"features": sample.features, "target": sample.target}
        self._optimizer = Adam(cosine(RATE, steps=STEPS))

    def _objective(self, parameters: Any, batch: Any) -> jax.Array:
        return self._per_row(self._model.apply(parameters, batch["features"]), batch["target"])

    @property
    def strongest(self) -> float:
        """The least penalty that keeps every weight at zero: the largest slope there."""
        weights = jnp.asarray(self._sample.weights)

        def mean(parameters: Any) -> jax.Array:
            return (weights * self._objective(parameters, self._data)).sum() / weights.sum()

        slopes = jax.grad(mean)(self.start)["layer_1"]["weights"]
        return float(jnp.abs(slopes).max())

    def fit(self, start: Any, strength: float, kept: Floats | None = None) -> Any:
        """Return the parameters at the minimum, as far as `STEPS` steps lead, of the features kept."""
        features = self._data["features"] if kept is None else self._data["features"] * kept
        result = minimize(
            self._objective,
            start,
            self._data | {"features": features},
            optimizer=self._optimizer,
            batch_size="all",
            epochs=STEPS,
            weights=self._sample.weights,
            l1={"layer_1": {"weights": strength, "bias": 0.0}},
        )
        return result.parameters

    def losses(self, parameters: Any, sample: Sample, kept: Floats | None = None) -> Floats:
        """Return the loss of each row of another sample."""
        features = sample.features if kept is None else sample.features * kept
        return np.asarray(
            self._objective(parameters, {"features": features, "target": sample.target}), np.float64
        )


def _path(models: _LinearModels, judging: Sample, owners: npt.NDArray[np.int64], columns: int) -> _Path:
    """Fit the whole path, each model from the one before."""
    strengths = models.strongest * np.geomspace(1, WEAKEST, STRENGTHS)
    parameters, largest = models.start, np.zeros((STRENGTHS, columns))
    losses, found = [], []
    for place, strength in enumerate(strengths):
        parameters = models.fit(parameters, float(strength))
        np.maximum.at(largest[place], owners, np.abs(np.asarray(parameters["layer_1"]["weights"])).max(1))
        losses.append(models.losses(parameters, judging))
        found.append(parameters)
    return _Path(strengths, largest, np.stack(losses), found)


def _owners(plan: Plan) -> npt.NDArray[np.int64]:
    """Return the number of the column that each feature comes from."""
    return np.repeat(np.arange(len(plan.columns)), [span.stop - span.start for span in plan.groups.values()])


def _mean(losses: Floats, weights: Floats) -> float:
    return float(np.average(losses, weights=weights))


def _scaled(sample: Sample) -> Sample:
    """Give every feature the mean 0 and the deviation 1, so that the penalty treats them alike."""
    features = sample.features - sample.features.mean(0, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(np.einsum("ij,ij->j", features, features) / len(features))
    features /= np.where(deviation > 1e-6, deviation, np.inf).astype(np.float32)
    return Sample(features, sample.target, sample.weights)


def _without(plan: Plan, chosen: set[int]) -> Plan:
    """Return the plan with the chosen columns alone."""
    left_out = tuple(
        Dropped(column.name, "--select left it out.")
        for number, column in enumerate(plan.columns)
        if number not in chosen
    )
    kept = tuple(column for number, column in enumerate(plan.columns) if number in chosen)
    return Plan(kept, (*plan.dropped, *left_out))


def says(record: Mapping[str, Any]) -> str:
    """Say in a sentence what was chosen and what it cost.

    Examples
    --------
    >>> says({"columns": ["a", "b"], "left_out": ["c"], "stay": ["body"], "loss": "binary_cross_entropy",
    ...       "of_all": 0.41, "of_chosen": 0.42, "of_none": 0.69, "rows": 800, "rows_held_out": 200})
    'Of 3 columns 2 were chosen: on 200 training rows held out for it, the binary cross entropy of a linear
    model is 0.4200 with these, 0.4100 with all and 0.6900 without any. Not chosen among: body.'
    """
    chosen, loss = len(record["columns"]), record["loss"].replace("_", " ")
    return (
        f"Of {chosen + len(record['left_out']):,} columns {chosen:,} were chosen: on "
        f"{record['rows_held_out']:,} training rows held out for it, the {loss} of a linear model is "
        f"{record['of_chosen']:.4f} with these, {record['of_all']:.4f} with all and {record['of_none']:.4f} "
        "without any." + (f" Not chosen among: {', '.join(record['stay'])}." if record["stay"] else "")
    )


def check_select(wanted: object) -> None:
    """Refuse what is no number of columns.

    Raises
    ------
    SteepestError
        If it is neither "auto" nor a whole number from 1.
    """
    if wanted != "auto" and not (isinstance(wanted, int) and wanted >= 1):
        raise SteepestError(
            f"--select takes auto or a number of columns, 1 or more; {wanted!r} is neither.",
            hint="Try --select auto.",
        )
