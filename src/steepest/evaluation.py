"""How good a model's predictions are, in the figures that fit the task, beside a baseline.

The baseline never looks at a column: it always predicts what was most usual among the training rows. Its
scores come from the same functions as the model's, applied to that constant prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steepest import curves
from steepest.errors import SteepestError, nearest

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SCORE_NAMES: dict[str, tuple[str, str]] = {
    "auc": ("Area under the ROC curve", "higher"),
    "average_precision": ("Average precision", "higher"),
    "accuracy": ("Accuracy", "higher"),
    "log_loss": ("Log loss", "lower"),
    "brier": ("Brier score", "lower"),
    "macro_f1": ("Macro F1", "higher"),
    "macro_auc": ("Mean area under the ROC curves", "higher"),
    "rmse": ("Root mean squared error", "lower"),
    "mae": ("Mean absolute error", "lower"),
    "r2": ("Variance explained (R²)", "higher"),
    "poisson_deviance": ("Mean Poisson deviance", "lower"),
}
"""Every score's title for a person, and whether ``"higher"`` or ``"lower"`` is better."""

KINDS = ("binary", "classes", "counts", "number")


LARGEST_NUMBER = 1e140  # its square can still be summed over any table in float64


def evaluate(
    kind: str,
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    baseline: ArrayLike,
    labels: Sequence[str] = (),
    naive: Mapping[str, ArrayLike] | None = None,
) -> dict[str, Any]:
    """Score predictions with the figures that fit the task, beside a baseline.

    Parameters
    ----------
    kind
        ``"binary"``, ``"classes"``, ``"counts"`` or ``"number"``.
    truth
        Shape [rows]: 0 or 1 (binary), class codes from 0 (classes), or numbers.
    prediction
        Binary: the probability of the second label, [rows]. Classes: probabilities, [rows, classes].
        Counts and number: the predicted mean, [rows], in the target's own unit.
    baseline
        What the training rows alone predict: the share of the second label (binary), the share of every
        class (classes), or the mean (counts, number).
    labels
        The names of the classes in the order of their codes, for the confusion matrix; by default the codes.
    naive
        Counts and number: forecasts that need no model, [rows] each, by what a person calls them. The best of
        these is the baseline then.

    Returns
    -------
    dict
        Plain JSON types, None where a figure is undefined: ``{"kind", "rows", "scores": {name: value},
        "baseline": {"what", "scores"}, "curves": {...}, "notes": [sentence, ...]}``.

    Raises
    ------
    SteepestError
        There are no rows, a prediction is NaN or infinite, or a probability lies outside [0, 1].

    Examples
    --------
    >>> result = evaluate("number", [1.0, 2.0, 4.0], [1.0, 2.0, 3.0], baseline=2.0)
    >>> {name: round(value, 4) for name, value in result["scores"].items()}
    {'rmse': 0.5774, 'mae': 0.3333, 'r2': 0.7857}
    >>> result["baseline"]["what"], round(result["baseline"]["scores"]["rmse"], 4)
    ('always predicting the mean of the training rows (2)', 1.291)
    """
    if kind not in KINDS:
        raise SteepestError(f"there is no evaluation for the kind {kind!r}.", hint=nearest(kind, KINDS))
    true = _checked(truth, "the target")
    predicted = _checked(
        prediction, "the model's predictions", "Lower the learning rate or clip the gradient."
    )
    if predicted.ndim != (2 if kind == "classes" else 1) or len(true) != len(predicted):
        raise SteepestError(f"predictions of shape {predicted.shape} do not fit {len(true):,} rows.")
    if len(true) == 0:
        raise SteepestError("there are no rows to evaluate.", hint="Hold more rows out or name another file.")
    usual = np.asarray(baseline, np.float64)
    if kind == "binary":
        result = _evaluate_binary(true, predicted, float(usual), [*map(str, labels)] or ["0", "1"])
    elif kind == "classes":
        result = _evaluate_classes(
            true, predicted, usual, [*map(str, labels)] or [*map(str, range(usual.size))]
        )
    else:
        result = _evaluate_numbers(true, predicted, float(usual), naive or {}, counts=kind == "counts")
    return {"kind": kind, "rows": len(true), **result}


def permutation_importance(
    loss_of: Callable[[NDArray[Any], Integers], float],
    features: Any,
    groups: Mapping[str, Any],
    *,
    seed: int,
    rows: int = 5000,
    repeats: int = 3,
) -> list[dict[str, Any]]:
    """Measure how much the loss rises when one column's values are shuffled among the rows.

    Breiman, "Random Forests", Machine Learning 45 (2001), section 10.

    Parameters
    ----------
    loss_of
        ``loss_of(features, positions)``: the mean loss over features [sampled rows, features], which are
        the given rows at ``positions`` [sampled rows], possibly with one column shuffled. The positions
        pick the matching targets and weights.
    features
        Shape [rows, features]; never changed. An array, or what gives one for the numbers of some rows; or
        something else that has ``shuffled(group, order)``.
    groups
        For each column its slice of the features, or its group; these are shuffled together.
    seed
        The same seed samples and shuffles the same way.
    rows
        How many rows to sample at most.
    repeats
        How many shuffles to average over.

    Returns
    -------
    list of dict
        ``{"name", "value", "spread"}``: the mean increase of the loss over the repeats and its standard
        deviation, largest first, equal ones in the order of ``groups``.

    Raises
    ------
    SteepestError
        There are no rows, or the loss is NaN or infinite.

    Examples
    --------
    >>> x = np.arange(12.0).reshape(6, 2)
    >>> entries = permutation_importance(
    ...     lambda features, positions: float(np.mean((features[:, 0] - x[positions, 0]) ** 2)),
    ...     x, {"used": slice(0, 1), "unused": slice(1, 2)}, seed=0)
    >>> [(entry["name"], entry["value"] > 0) for entry in entries]
    [('used', True), ('unused', False)]
    """
    if len(features) == 0:
        raise SteepestError("there are no rows to measure importances on.", hint="Hold more rows out.")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))
    positions = curves.sample_rows(generator, len(features), rows)
    sampled = features[positions]
    # Every column meets the same shuffles, so that columns differ only by what they hold.
    shuffles = [generator.permutation(len(positions)) for _ in range(repeats)]
    untouched = float(loss_of(sampled, positions))
    entries = []
    for name, columns in groups.items():
        losses = []
        for shuffle in shuffles:
            if isinstance(sampled, np.ndarray):
                shuffled = sampled.copy()
                shuffled[:, columns] = sampled[shuffle, columns]
            else:
                shuffled = sampled.shuffled(columns, shuffle)
            losses.append(float(loss_of(shuffled, positions)))
        increases = np.asarray(losses) - untouched
        if not np.isfinite(increases).all():
            raise SteepestError(
                f"the loss is not finite when column {name!r} is shuffled, so its importance is unknown.",
                hint="Lower the learning rate or clip the gradient.",
            )
        entries.append({"name": name, "value": float(increases.mean()), "spread": float(increases.std())})
    return sorted(entries, key=lambda entry: -entry["value"])


def _evaluate_binary(
    truth: Floats, probability: Floats, rate: float, labels: Sequence[str]
) -> dict[str, Any]:
    if not np.isin(truth, (0, 1)).all():
        raise SteepestError("the target of a binary evaluation holds other values than 0 and 1.")
    _check_probabilities(probability)
    drawn: dict[str, Any] = {
        "calibration": curves.calibration(truth, probability),
        "confusion": curves.confusion(truth.astype(np.int64), (probability > 0.5).astype(np.int64), labels),
    }
    notes = []
    if truth.min() == truth.max():
        only = labels[int(truth[0])]
        notes.append(f"Every row evaluated is {only!r}: ROC and precision-recall need rows of both labels.")
    else:
        drawn["roc"] = curves.roc(truth, probability)
        drawn["precision_recall"] = curves.precision_recall(truth, probability)
    return {
        "scores": _binary_scores(truth, probability),
        "baseline": {
            "what": f"always predicting the training rows' share of {labels[1]!r} ({rate:.1%})",
            "scores": _binary_scores(truth, np.full(len(truth), rate)),
        },
        "curves": drawn,
        "notes": notes,
    }


def _binary_scores(truth: Floats, probability: Floats) -> dict[str, float | None]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    both = truth.min() != truth.max()
    return {
        "auc": float(roc_auc_score(truth, probability)) if both else None,
        "average_precision": float(average_precision_score(truth, probability)) if both else None,
        "accuracy": float(np.mean((probability > 0.5) == truth)),
        "log_loss": _log_loss(np.where(truth == 1, probability, 1 - probability)),
        "brier": float(np.mean((probability - truth) ** 2)),
    }


def _evaluate_classes(
    truth: Floats, probabilities: Floats, shares: Floats, labels: Sequence[str]
) -> dict[str, Any]:
    if shares.shape != probabilities.shape[1:]:
        raise SteepestError(
            f"predictions of shape {probabilities.shape} do not give one probability to each of the "
            f"{shares.size} classes."
        )
    classes = probabilities.shape[1]
    codes = truth.astype(np.int64)
    if not (np.isin(codes, np.arange(classes)).all() and (codes == truth).all()):
        raise SteepestError(
            f"the target of a {classes}-class evaluation holds other codes than 0 to {classes - 1}."
        )
    _check_probabilities(probabilities)
    if np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
        raise SteepestError("the predicted probabilities of some rows do not sum to one.")
    occurring = np.unique(codes)
    notes = []
    if len(occurring) == 1:
        notes.append(
            f"Every row evaluated is {labels[occurring[0]]!r}: an ROC curve needs rows of two classes."
        )
    elif len(occurring) < classes:
        notes.append(
            f"{classes - len(occurring)} of {classes} classes have no row among those evaluated; "
            "the area under the ROC curve is the mean over the others."
        )
    if classes > curves.CONFUSION_CLASSES:
        notes.append(
            f"The confusion matrix names the {curves.CONFUSION_CLASSES} most frequent of {classes} classes; "
            "the others share its last row and column."
        )
    return {
        "scores": _class_scores(codes, probabilities),
        "baseline": {
            "what": "always predicting the class shares of the training rows "
            f"(the largest is {labels[int(shares.argmax())]!r}, {shares.max():.1%})",
            "scores": _class_scores(codes, np.broadcast_to(shares, probabilities.shape)),
        },
        "curves": {"confusion": curves.confusion(codes, probabilities.argmax(axis=1), labels)},
        "notes": notes,
    }


def _class_scores(codes: Integers, probabilities: Floats) -> dict[str, float | None]:
    from sklearn.metrics import f1_score, roc_auc_score

    predicted = probabilities.argmax(axis=1)
    occurring = np.unique(codes)
    # Float32 rows sum to one only to about 1e-7.
    of_truth = probabilities[np.arange(len(codes)), codes] / probabilities.sum(axis=1)
    areas = [roc_auc_score(codes == code, probabilities[:, code]) for code in occurring if len(occurring) > 1]
    return {
        "accuracy": float(np.mean(predicted == codes)),
        "macro_f1": float(f1_score(codes, predicted, average="macro", zero_division=0)),
        "macro_auc": float(np.mean(areas)) if areas else None,
        "log_loss": _log_loss(of_truth),
    }


def _evaluate_numbers(
    truth: Floats, prediction: Floats, mean: float, naive: Mapping[str, ArrayLike], *, counts: bool
) -> dict[str, Any]:
    notes = []
    if truth.min() == truth.max():
        notes.append("The target has one value only among the rows evaluated: R² is undefined.")
    usual = f"always predicting the mean of the training rows ({mean:.4g})"
    baselines: list[dict[str, Any]] = [
        {"what": what, "scores": _number_scores(truth, _checked(each, "a forecast"), counts=counts)}
        for what, each in (naive or {usual: np.full(len(truth), mean)}).items()
    ]
    baseline = min(baselines, key=lambda each: each["scores"]["rmse"])
    if len(baselines) > 1:
        others = (
            f"{each['what']}: {each['scores']['rmse']:.4g}" for each in baselines if each is not baseline
        )
        notes.append(f"Root mean squared errors of other naive forecasts: {'; '.join(others)}.")
    without_deviance = int(np.sum(prediction <= 0))
    if counts and without_deviance:
        notes.append(
            f"{without_deviance:,} predictions are zero or less: the Poisson deviance is undefined for them."
        )
    return {
        "scores": _number_scores(truth, prediction, counts=counts),
        "baseline": baseline,
        "curves": {
            "residuals": curves.residuals(truth, prediction),
            "predicted_against_true": curves.predicted_against_true(truth, prediction),
        },
        "notes": notes,
    }


def _number_scores(truth: Floats, prediction: Floats, *, counts: bool) -> dict[str, float | None]:
    from sklearn.metrics import mean_absolute_error, mean_poisson_deviance, r2_score, root_mean_squared_error

    varies = truth.min() != truth.max()
    scores: dict[str, float | None] = {
        "rmse": float(root_mean_squared_error(truth, prediction)),
        "mae": float(mean_absolute_error(truth, prediction)),
        "r2": float(r2_score(truth, prediction)) if varies else None,
    }
    if counts:
        defined = truth.min() >= 0 and prediction.min() > 0
        scores["poisson_deviance"] = float(mean_poisson_deviance(truth, prediction)) if defined else None
    return scores


def _checked(values: ArrayLike, whose: str, hint: str = "") -> Floats:
    array = np.asarray(values, np.float64)
    wrong = int(np.sum(~(np.abs(array) < LARGEST_NUMBER)))
    if wrong:
        raise SteepestError(
            f"{wrong:,} of {array.size:,} values of {whose} are missing, infinite or beyond 1e140.", hint=hint
        )
    return array


def _check_probabilities(probability: Floats) -> None:
    if probability.min() < -1e-6 or probability.max() > 1 + 1e-6:
        raise SteepestError(
            f"predicted probabilities must lie between 0 and 1, but range from {probability.min():.4g} "
            f"to {probability.max():.4g}."
        )


def _log_loss(probability_of_truth: Floats) -> float:
    # Clipped as scikit-learn does, without its one-hot copy of the target.
    smallest = float(np.finfo(np.float64).eps)
    return float(-np.log(np.clip(probability_of_truth, smallest, 1)).mean())
