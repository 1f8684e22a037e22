"""`steepest.plot`: what a stored run or a result shows."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import steepest
import steepest.run
from steepest import SteepestError
from steepest.diagnosis import plots
from steepest.diagnosis.rates import RateSearch
from test_figures import POINTS, SEARCH, compared, descents, drawn


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> steepest.run.Run:
    """Fit a small table, and record what a fit may record besides."""
    noise = np.random.Generator(np.random.Philox(3))
    table = {"x": noise.standard_normal(200).tolist(), "z": noise.standard_normal(200).tolist()}
    table["y"] = [2 * x + 1 for x in table["x"]]
    path = tmp_path_factory.mktemp("runs") / "run"
    steepest.fit(table, "y", epochs=3, learning_rate=0.1, out=str(path))
    record = json.loads((path / "record.json").read_text("utf-8"))
    (path / "record.json").write_text(json.dumps(record | {"learning_rate": SEARCH}), "utf-8")
    return steepest.run.open_run(path)


STORED = ("overview", "loss_by_step", "loss_by_epoch", "learning_rate", "gradient_norm")
RECORDED = ("rate_against_loss", "curvature", "residuals", "predicted_against_true", "importances")


@pytest.mark.parametrize("name", [*STORED, *RECORDED])
def test_a_stored_run_is_all_that_a_figure_needs(run, name, tmp_path):
    draw = getattr(steepest.plot, name)
    assert drawn(draw(run)) == drawn(draw(str(run.path))) == drawn(draw(run.path))
    draw(run).savefig(tmp_path / "figure.png")
    draw(run).savefig(tmp_path / "figure.svg")


@pytest.mark.parametrize("name", STORED)
def test_a_result_can_be_drawn(name):
    result = steepest.minimize(lambda p: jnp.sum(p**2), np.ones(3), epochs=20)
    figure = getattr(steepest.plot, name)(result)
    assert drawn(figure) == drawn(getattr(steepest.plot, name)(result))
    assert drawn(result.plot()) == drawn(steepest.plot.overview(result))
    if name == "loss_by_step":
        np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), result.history["loss"])


def test_what_was_not_recorded_is_said(run, tmp_path):
    for draw, of, said in (
        (steepest.plot.update_ratio, run.__class__(run.path), "update ratio can't be drawn"),
        (steepest.plot.rate_against_loss, {"rates": [], "why": "There are too few rows."}, "too few rows"),
        (steepest.plot.roc, run, "no roc. It has: residuals"),
        (steepest.plot.overview, 3, "no such figure of a int"),
        (steepest.plot.overview, tmp_path / "none", "There is no run"),
        (steepest.plot.loss_by, tmp_path, "There is no comparison"),
        (steepest.plot.loss_by, pd.DataFrame({"loss": [1.0]}), "no column 'variant'"),
        (steepest.plot.from_above, tmp_path / "none.json", "holds no landscape"),
        (steepest.plot.from_above, run.path / "record.json", "holds no landscape"),
    ):
        with pytest.raises(SteepestError, match=said):
            draw(of)


def test_comparisons_and_landscapes_are_read_from_files(tmp_path):
    compared(2).to_parquet(tmp_path / "history.parquet")
    assert drawn(steepest.plot.loss_by(tmp_path, "rows")) == drawn(plots.loss_by(compared(2), "rows"))
    seen = descents("a")
    (tmp_path / "landscape.json").write_text(json.dumps(seen.to_json()), "utf-8")
    assert drawn(steepest.plot.from_above(tmp_path / "landscape.json")) == drawn(plots.from_above(seen))
    found = steepest.plot.rate_against_loss(RateSearch(**SEARCH))
    assert drawn(found) == drawn(plots.rate_against_loss(SEARCH))
    search, points = steepest.plot.rate_against_loss(SEARCH), steepest.plot.curvature(POINTS)
    assert drawn(search) == drawn(plots.rate_against_loss(SEARCH))
    assert drawn(points) == drawn(plots.curvature(POINTS))
