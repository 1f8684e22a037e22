"""A fitted run in other systems: ONNX, Keras, scikit-learn and safetensors.

Each function takes a `steepest.run.Run`, as `steepest.fit` returns it, or the folder of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from steepest.errors import SteepestError
from steepest.run import Run, open_model

if TYPE_CHECKING:
    import keras
    import onnx

    from steepest.sklearn import DescentClassifier, DescentRegressor

__all__ = ["keras_inputs", "onnx_inputs", "to_file", "to_keras", "to_onnx", "to_sklearn"]

Arrays = dict[str, npt.NDArray[Any]]


def to_file(run: Run | str | Path, out: str | Path) -> dict[str, str]:
    """Write a run's model to a file; one of that name is replaced.

    Parameters
    ----------
    run
        The run.
    out
        The file: ``.onnx`` (see `to_onnx`), ``.keras`` (see `to_keras`) or ``.safetensors``, the parameters,
        whose metadata tell how predictions are computed of them.

    Returns
    -------
    dict
        The columns whose plan the file does not hold, and why.

    Raises
    ------
    SteepestError
        If the ending names no format, the model can't be had in it, a package is missing, or the file can't
        be written.
    """
    from steepest.export.files import write

    return write(open_model(run), Path(out))


def to_onnx(run: Run | str | Path) -> onnx.ModelProto:
    """Return a model with its column plan as ONNX; a Keras model by the package jax2onnx.

    The inputs are the columns that the run learned from, by their names, ``[rows, 1]``. Numbers and booleans
    are ``double``, where NaN is missing; categories are ``string``, whole numbers among them written as their
    digits, and the empty text is missing; times are ``int64``, microseconds since 1970 by the clock, or since
    midnight, where the smallest number (NumPy's NaT) is missing. The outputs are ``prediction`` ``[rows]``
    and, of classes, ``probabilities`` ``[rows, classes]``: what ``steepest predict`` says, in single
    precision.

    ONNX has no operators for words, lists, maps, crosses and hashed values. If the plan has such columns, the
    inputs are the encoded features instead: see `onnx_inputs`. The metadata ``not_included`` name these
    columns.

    Infinite numbers, and those too large to compute with, which ``steepest predict`` refuses, make NaN of
    what is predicted.

    Parameters
    ----------
    run
        The run.

    Raises
    ------
    SteepestError
        If the model is larger than ONNX can hold, a package is missing, or jax2onnx has no operators for what
        a Keras model computes.
    """
    opened = open_model(run)
    part = "onnx" if opened.shape else "onnx-keras"
    try:
        from steepest.export.onnx import onnx_model

        if part == "onnx-keras":
            from steepest.export import onnx_keras  # noqa: F401
    except ModuleNotFoundError as error:
        raise SteepestError(
            f"ONNX is written by the package {error.name}, which is not installed.",
            hint=f"Install it: pip install 'steepest[{part}]'.",
        ) from error
    return onnx_model(opened)


def to_keras(run: Run | str | Path) -> keras.Model:
    """Return the model as a Keras model; that of a Keras run as it was built, with its weights.

    A linear or multilayer model has dense layers, dropout included, and the link, so that it returns what
    ``steepest predict`` says, ``[rows, 1]`` (of two classes the probability of the last) or
    ``[rows, classes]``. Its inputs are the encoded features: see `keras_inputs`. It is not compiled.

    Parameters
    ----------
    run
        The run.

    Raises
    ------
    SteepestError
        If Keras is missing, or does not run on JAX.
    """
    from steepest.export.keras import keras_model

    return keras_model(open_model(run))


def to_sklearn(run: Run | str | Path) -> DescentClassifier | DescentRegressor:
    """Return the model as an estimator of scikit-learn that is fitted, and fits as the run did.

    It takes frames with the columns of the run's table but for the target, and predicts as the run does. Its
    parameters are the run's settings, so that a clone of it fits anew. It has ``coef_`` if the model is
    linear and all columns that were learned from hold numbers or booleans, none of them missing. It can't go
    on by ``partial_fit``.

    Parameters
    ----------
    run
        The run.

    Raises
    ------
    SteepestError
        If the run's model is a Keras model, or looks back at the rows before by lags.
    """
    opened = open_model(run)
    from steepest.export.description import own_shape
    from steepest.export.sklearn import estimator

    return estimator(opened, own_shape(opened, "an estimator", "Take steepest.export.to_keras."))


def onnx_inputs(run: Run | str | Path, data: Any) -> Arrays:
    """Return rows as the ONNX model of a run takes them, by the names of its inputs.

    Parameters
    ----------
    run
        The run.
    data
        Rows: whatever `steepest.open_source` takes. All are in memory at once.

    Raises
    ------
    SteepestError
        If a column is missing or holds what it did not in training.
    """
    from steepest.export.inputs import beyond, column_arrays, feature_arrays

    plan = open_model(run).plan
    return feature_arrays(plan, data) if beyond(plan) else column_arrays(plan, data)


def keras_inputs(run: Run | str | Path, data: Any) -> npt.NDArray[np.float32] | Arrays:
    """Return rows as the Keras model of a run takes them: the encoded features.

    Returns
    -------
    numpy.ndarray or dict
        float32 ``[rows, features]``, named by ``run.plan.feature_names``. If there are sparse features, by
        input: those as ``"features"``, and for each sparse column the places of its features,
        ``"body.places"`` int32 ``[rows, length]``, and of text, lists and maps their values,
        ``"body.values"`` float32.

    Parameters and errors are those of `onnx_inputs`.
    """
    from steepest.export.inputs import feature_arrays
    from steepest.sparse_columns import FEATURES

    plan = open_model(run).plan
    arrays = feature_arrays(plan, data)
    return arrays if plan.layout.sparse else arrays[FEATURES]
