"""Estimators on frames with columns of any kind."""

from __future__ import annotations

import pickle

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from steepest.sklearn import DescentClassifier

CANCER, BENIGN = load_breast_cancer(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)


def assert_same(one, other) -> None:
    assert jax.tree.all(jax.tree.map(np.array_equal, one.parameters_, other.parameters_))


def table(rows: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "distance": rng.normal(500, 100, rows),
            "carrier": pd.Categorical(rng.choice(["AA", "UA", "DL"], rows)),
            "remark": rng.choice(["late bird again", "on time again", "late crew", "no remark"], rows),
            "full": rng.random(rows) < 0.5,
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 24 * 60, rows), "h"),
        }
    )
    frame.loc[::17, "distance"] = np.nan
    late = frame["remark"].str.startswith("late") ^ (frame["carrier"] == "UA") & frame["full"]
    return frame, np.where(late, "late", "early")


def test_a_frame_is_taken_as_it_is() -> None:
    frame, late = table()
    model = DescentClassifier(hidden=(16,), learning_rate=0.01, epochs=60).fit(frame[:300], late[:300])
    assert model.score(frame[300:], late[300:]) > 0.95
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.n_features_in_ == 5
    expected = model.decision_function(frame)
    assert np.array_equal(model.decision_function(frame[frame.columns[::-1]]), expected)
    assert np.allclose(model.decision_function(pl.from_pandas(frame)), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).decision_function(frame), expected)
    with pytest.raises(ValueError, match="no column 'remark', which it had"):
        model.predict(frame.drop(columns="remark"))
    with pytest.raises(ValueError, match="fitted without a column 'dest'"):
        model.predict(frame.assign(dest="JFK"))
    with pytest.raises(ValueError, match="fitted on a frame; these rows are a ndarray"):
        model.predict(frame.to_numpy())


def test_a_polars_frame_gives_the_model_of_the_same_pandas_frame() -> None:
    frame, late = table()
    options = {"learning_rate": 0.01, "epochs": 5, "early_stopping": True}
    ours = DescentClassifier(**options).fit(frame, late)
    same = DescentClassifier(**options).fit(pl.from_pandas(frame), late)
    assert_same(ours, same)
    assert not hasattr(ours, "coef_")


def test_partial_fit_of_frames_keeps_the_first_ones_columns() -> None:
    frame, late = table()
    model = DescentClassifier(learning_rate=0.05, epochs=10).partial_fit(
        frame[:200], late[:200], classes=["late", "early"]
    )
    features = model.parameters_["layer_1"]["weights"].shape
    other = frame[200:].assign(carrier="ZZ")[frame.columns[::-1]]
    model.partial_fit(other, late[200:])
    assert model.parameters_["layer_1"]["weights"].shape == features
    assert model.classes_.tolist() == ["early", "late"]


def test_a_frame_of_numbers_is_a_matrix() -> None:
    frame = load_iris(as_frame=True).data
    model = DescentClassifier(learning_rate=0.05, epochs=20).fit(frame, SPECIES)
    assert model.coef_.shape == (3, 4)
    assert_same(model, DescentClassifier(learning_rate=0.05, epochs=20).fit(IRIS, SPECIES))
