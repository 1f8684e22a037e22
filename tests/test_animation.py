"""The descent seen from above, moving."""

from __future__ import annotations

import json

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from steepest import SteepestError
from steepest.diagnosis import plots
from steepest.diagnosis.animation import animate
from steepest.diagnosis.landscape import landscape
from test_figures import descents, drawn
from test_report import HOSTILE, Elements

SCENES = {
    "one parameter": lambda: landscape(lambda p: p**2, {"a": np.array([3.0, 1.0])}, points=9),
    "one snapshot": lambda: landscape(lambda p: p @ p, {"a": np.ones((1, 5))}, points=5),
    "flat": lambda: landscape(lambda p: 0 * p[0], {"a": np.ones((3, 5))}, points=5),
    "diverged": lambda: landscape(
        lambda p: p @ p, {"a": np.ones((3, 5)), "b": np.full((2, 5), np.nan)}, points=5
    ),
    "holes": lambda: landscape(lambda p: jnp.log(p[0] + p[1]), {"a": np.eye(2)}, points=5),
    "eight": lambda: descents(*(f"{place} {HOSTILE}" for place in range(8))),
    "letters": lambda: descents("到着地", "$\\frac$"),
}


@pytest.mark.parametrize("name", SCENES)
def test_every_landscape_can_be_drawn_and_moves(name, tmp_path):
    seen = SCENES[name]()
    assert drawn(plots.from_above(seen)).count("<path") > 1
    before = dict(mpl.rcParams)
    animate(seen, tmp_path / "moving.gif")
    animate(seen, tmp_path / "moving.html")
    assert dict(mpl.rcParams) == before
    page = Elements((tmp_path / "moving.html").read_text("utf-8"))
    assert page.open == []
    shapes = [tag for tag, attributes in page.tags if attributes.get("id", "").startswith("line-")]
    assert shapes == ["polyline"] * len(seen.paths)
    with Image.open(tmp_path / "moving.gif") as picture:
        assert picture.size[0] == pytest.approx(630, abs=1)


def test_a_gif_moves_from_start_to_end_and_rests(tmp_path):
    animate(descents("a"), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        durations = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            durations.append(picture.info["duration"])
    assert durations == [500] * 5 + [1500]


def test_of_a_long_path_a_hundred_snapshots_are_shown(tmp_path):
    path = np.linspace([1.0, 1.0], [0.0, 0.0], 1234)
    animate(landscape(lambda p: p @ p, {"long": path}, points=3), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    scene = json.loads(page.partition('id="scene">')[2].partition("</script>")[0])
    assert (len(scene["snapshots"]), scene["snapshots"][0], scene["snapshots"][-1]) == (100, 1, 1234)
    assert len(scene["paths"][0]["points"]) == 100


def test_points_on_the_page_lie_where_matplotlib_draws_them(tmp_path):
    # The path's own polyline against the one that Matplotlib writes for the same figure.
    seen = descents("a")
    animate(seen, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    points = page.partition('<polyline id="line-0" points="')[2].partition('"')[0]
    ours = np.array([pair.split(",") for pair in points.split()], float)
    horizontal, vertical = ours[:, 0], ours[:, 1]
    place = np.array([seen.paths["a"].x, seen.paths["a"].y], float)
    for pixels, data in ((horizontal, place[0]), (-vertical, place[1])):
        slope, offset = np.polyfit(data, pixels, 1)
        np.testing.assert_allclose(slope * data + offset, pixels, atol=0.02)
        assert slope > 0
    frame = page.partition('<clipPath id="within"><rect ')[2].partition("/>")[0]
    x, y, width, height = (float(part.split('"')[1]) for part in frame.split())
    share = (horizontal - x) / width
    np.testing.assert_allclose(share, (place[0] - seen.x[0]) / (seen.x[-1] - seen.x[0]), atol=1e-3)
    share = (y + height - vertical) / height
    np.testing.assert_allclose(share, (place[1] - seen.y[0]) / (seen.y[-1] - seen.y[0]), atol=1e-3)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(SteepestError, match=r"end in \.gif or \.html"):
        animate(descents("a"), tmp_path / "a.mp4")
