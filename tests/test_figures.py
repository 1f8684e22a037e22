"""The figures of a descent: each builds from what was stored, edges included, and shows what it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from steepest import SteepestError
from steepest.diagnosis import plots
from steepest.diagnosis.landscape import landscape
from steepest.diagnosis.plots.axes import LINES, tick
from steepest.diagnosis.svg import PAGE, PALETTE, svg
from test_report import HOSTILE, Elements, edge_histories, history, make_record, rendered

SEARCH: dict[str, Any] = {
    "rates": [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0],
    "losses": [0.69, 0.6, 0.3, 0.2, 40.0, None],
    "start_loss": 0.7,
    "interval": [5e-3, 0.2],
    "choice": 0.05,
    "limit": 0.4,
    "why": "it reached the lowest loss",
}
POINTS = [
    {"step": step, "curvature": 2.0 + step / 100, "limit_curvature": 40.0 - step / 10}
    for step in range(0, 301, 100)
]


def steps_with_ratios(count: int = 300, layers: int = 3) -> pd.DataFrame:
    steps = history(count, 1)[0]
    measured = (steps["step"] - 1) % 32 == 0
    for place, name in enumerate(["", *[f".layer_{layer}" for layer in range(layers)]]):
        steps[f"update_ratio{name}"] = np.where(measured, 0.01 * (place + 1), np.nan)
    return steps


def compared(variants: int = 3, count: int = 50) -> pd.DataFrame:
    step = np.arange(1, count + 1)
    parts = [
        pd.DataFrame(
            {
                "variant": f"variant {place}",
                "step": step,
                "rows": step * 10**place,
                "seconds": step * 0.01,
                "loss": np.exp(-step / count) + place,
            }
        )
        for place in range(variants)
    ]
    return pd.concat(parts, ignore_index=True)


def drawn(figure) -> str:
    """Return a figure as it stands in a page; whatever Matplotlib warns of is an error here."""
    return svg(figure, title="A title", description="A description")


def lines(figure, axes: int = 0) -> dict[str, Any]:
    return {str(line.get_label()): line for line in figure.axes[axes].lines}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"interval": None, "choice": None, "limit": None},
        {"losses": [None] * 6, "interval": None, "choice": None, "limit": None},
        {"losses": [0.7] * 6, "interval": None, "choice": None},
        {"losses": [1e30, 1e9, 5.0, 3.0, 0.1, None]},
        {"losses": [-5.0, -4.0, -1.0, 0.0, 2.0, None], "start_loss": -0.5},
        {"losses": [float("nan"), float("inf"), 0.3, 0.2, 0.1, 0.05]},
        {"rates": [0.1], "losses": [0.3]},
        {"rates": [0.1, 0.001], "losses": [0.3, 0.5]},
    ],
)
def test_rates_can_be_drawn(changes):
    search = SEARCH | changes
    figure = plots.rate_against_loss(search)
    drawn(figure)
    known = dict(zip(search["rates"], search["losses"], strict=True))
    line = lines(figure)["loss reached"]
    np.testing.assert_array_equal(line.get_xdata(), sorted(search["rates"]))
    for rate, loss in zip(line.get_xdata(), line.get_ydata(), strict=True):
        assert loss == known[rate] or (np.isnan(loss) and not np.isfinite(known[rate] or np.nan))
    crosses = lines(figure)["diverged"].get_xdata() if "diverged" in lines(figure) else []
    assert list(crosses) == [
        rate for rate, loss in known.items() if not np.isfinite(np.float64(loss or np.nan)) and loss != 0
    ]


def test_the_choice_the_interval_and_the_limit_are_where_they_were_found():
    figure = plots.rate_against_loss(SEARCH)
    named = lines(figure)
    assert list(named["choice: 0.05"].get_xdata()) == [0.05, 0.05]
    assert list(named["curvature limit"].get_xdata()) == [0.4, 0.4]
    (band,) = figure.axes[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (5e-3, 0.2)
    bottom, top = figure.axes[0].get_ylim()
    assert (bottom, top) == pytest.approx(
        (0.1625, 0.95)
    )  # the loss of 40 is left out, not the others crushed
    assert figure.axes[0].get_xscale() == "log"


def test_update_ratios_are_drawn_where_they_were_measured():
    steps = steps_with_ratios()
    figure = plots.update_ratio(steps)
    named = lines(figure)
    assert [*named] == ["all layers", "layer_0", "layer_1", "layer_2"]
    for place, line in enumerate(named.values()):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 301, 32))
        np.testing.assert_allclose(line.get_ydata(), 0.01 * (place + 1))
    assert figure.axes[1].get_ylabel() == "learning rate"
    many = [*lines(plots.update_ratio(steps_with_ratios(layers=40)))]
    assert (len(many), many[1], many[-1]) == (8, "layer_0", "layer_39")
    alone = steps_with_ratios(layers=1)
    assert [*lines(plots.update_ratio(alone))] == ["all layers"]


@pytest.mark.parametrize("count", [1, 2, 33, 9000])
@pytest.mark.parametrize("layers", [0, 1, 9])
def test_ratios_of_every_length_can_be_drawn(count, layers):
    steps = steps_with_ratios(count, layers)
    drawn(plots.update_ratio(steps))
    drawn(plots.overview(steps, history(count, 1)[1]))
    drawn(plots.update_ratio(steps.assign(update_ratio=np.nan)))


@pytest.mark.parametrize(
    "points",
    [
        POINTS,
        POINTS[:1],
        [{"step": 0, "curvature": None, "limit_curvature": 3.0}],
        [{"step": 0, "curvature": -1.0, "limit_curvature": None}],
        [{"step": 0, "curvature": float("nan")}, {"step": 9, "curvature": 1e12, "limit_curvature": 1.0}],
        [],
    ],
)
def test_curvature_can_be_drawn(points):
    figure = plots.curvature(points)
    drawn(figure)
    expected = [np.nan if each["curvature"] is None else each["curvature"] for each in points]
    np.testing.assert_array_equal(lines(figure)["measured"].get_ydata(), expected)


def test_the_overview_has_a_panel_for_each_figure_that_was_recorded():
    steps, epochs = steps_with_ratios(), history(300, 10)[1]
    labels = [axes.get_ylabel() for axes in plots.overview(steps, epochs).axes]
    assert labels == ["loss", "learning rate", "norm of the gradient", "update ÷ weights"]
    bare = steps[["step", "epoch", "loss"]]
    assert [axes.get_ylabel() for axes in plots.overview(bare, epochs).axes] == ["loss"]
    for name, (steps, epochs) in edge_histories().items():
        assert drawn(plots.overview(steps, epochs)), name


@pytest.mark.parametrize("against", ["step", "rows", "seconds"])
@pytest.mark.parametrize(("variants", "count"), [(1, 1), (1, 500), (3, 50), (8, 1000)])
def test_variants_can_be_drawn(against, variants, count):
    figure = plots.loss_by(compared(variants, count), against)
    drawn(figure)
    named = lines(figure)
    assert [*named] == [f"variant {place}" for place in range(variants)]
    for place, line in enumerate(named.values()):
        last = count * {"step": 1, "rows": 10**place, "seconds": 0.01}[against]
        assert line.get_xdata()[-1] == pytest.approx(last)
        assert line.get_ydata()[-1] == pytest.approx(np.exp(-1) + place, rel=0.02)
    assert len({line.get_color() for line in named.values()}) == variants
    axes = figure.axes[0]
    assert axes.get_xscale() == ("log" if against == "rows" and variants > 2 else "linear")


def test_a_variant_that_diverged_leaves_a_gap():
    history = compared(2)
    history.loc[history["variant"] == "variant 1", "loss"] = np.nan
    history.loc[3, "loss"] = np.inf
    figure = plots.loss_by(history)
    drawn(figure)
    assert np.isnan(lines(figure)["variant 1"].get_ydata()).all()
    assert np.isnan(lines(figure)["variant 0"].get_ydata()).sum() == 1


def test_no_name_is_missing_from_the_key():
    history = compared(3).replace({"variant": {"variant 0": "_hidden", "variant 1": HOSTILE, "variant 2": 7}})
    (legend,) = [
        each for each in plots.loss_by(history).axes[0].get_children() if hasattr(each, "legend_handles")
    ]
    assert [text.get_text()[:8].strip() for text in legend.texts] == ["_hidden", HOSTILE[:8], "7"]


def test_variants_beyond_eight_and_unknown_measures_are_refused():
    with pytest.raises(SteepestError, match="9 variants can't be told apart"):
        plots.loss_by(compared(9))
    with pytest.raises(SteepestError, match="Did you mean 'seconds'"):
        plots.loss_by(compared(2), "second")


def test_lines_differ_by_dashes_alone_and_colours_stand_out_from_both_grounds():
    assert len(set(map(str, LINES))) == len(LINES) == 8

    def luminance(colour: str) -> float:
        channels = np.array(to_rgb(colour))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for light, dark in PALETTE.values():
        assert (luminance(PAGE["raised"][0]) + 0.05) / (luminance(light) + 0.05) > 3
        assert (luminance(dark) + 0.05) / (luminance(PAGE["raised"][1]) + 0.05) > 3


def test_geometric_bins_begin_with_single_steps():
    thin = plots.by_bin(np.arange(1, 10_001), np.ones(10_000), geometric=True)
    assert list(thin["step"][:10]) == list(range(1, 11))
    assert thin["step"].iloc[-1] == 10_000
    assert len(thin) <= 200


def descents(*names: str) -> Any:
    falls = 0.5 ** np.arange(6.0)
    paths = {name: np.stack([falls, -falls / (place + 1)], 1) for place, name in enumerate(names)}
    return landscape(lambda p: p[0] ** 2 + 3 * p[1] ** 2, paths, points=9)


def test_paths_run_from_ring_to_disc_over_contours():
    seen = descents("a", "b")
    figure = plots.from_above(seen)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameter 1", "parameter 2")
    assert (axes.get_xlim(), axes.get_ylim()) == ((seen.x[0], seen.x[-1]), (seen.y[0], seen.y[-1]))
    path, ring, disc = axes.lines[:3]
    np.testing.assert_array_equal(path.get_xydata()[[0, -1]], [[1, -1], [1 / 32, -1 / 32]])
    np.testing.assert_array_equal(ring.get_xydata(), [[1, -1]])
    np.testing.assert_array_equal(disc.get_xydata(), [[1 / 32, -1 / 32]])
    heights = axes.collections[-1].levels - np.min(seen.losses)
    np.testing.assert_allclose(heights[1:] / heights[:-1], heights[1] / heights[0])
    drawn(figure)


def test_the_report_shows_findings_rates_ratios_and_curvature(tmp_path):
    record = make_record("number") | {
        "learning_rate": SEARCH,
        "curvature": POINTS,
        "findings": [
            {
                "finding": "rate_too_high",
                "severity": "warning",
                "evidence": "the curvature, 60.12, is above the limit, 50",
                "where": "step 1,200",
                "try": "--learning-rate 0.003",
            },
            {"finding": HOSTILE, "severity": HOSTILE, "evidence": "the loss hovers", "where": "", "try": ""},
        ],
    }
    page = rendered(tmp_path, record, steps_with_ratios(), history(300, 1)[1])
    elements = Elements(page)
    assert elements.open == []
    text = " ".join(elements.text.split())
    for expected in (
        "Findings Rate too high warning step 1,200 The curvature, 60.12, is above the limit, 50. "
        "Try: --learning-rate 0.003",
        "The loss hovers.",
        "0.05000 was chosen: it reached the lowest loss. The shaded rates gained nearly as much as the best. "
        "Crosses at the upper edge diverged.",
        "rate loss reached 0.0001000 0.6900",
        "step curvature limit curvature 0 2.000 40.00",
        "step update ratio update ratio.layer 0",
    ):
        assert expected in text
    titles = [
        "Learning rates tried",
        "Loss by epoch",
        "Loss by step",
        "Learning rate",
        "Norm of the gradient",
    ]
    places = [page.index(f"<h3>{title}</h3>") for title in [*titles, "Update ratio", "Largest curvature"]]
    assert places == sorted(places)
    assert "<script" not in page


def test_ticks_are_short():
    assert [tick(value) for value in (0.25, 1500.0, 2e6, 1e-7, -3.0)] == [
        "0.25",
        "1,500",
        "2M",
        "1e−07",
        "−3",
    ]
