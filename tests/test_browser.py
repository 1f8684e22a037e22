"""The pages in a real browser: nothing is loaded, nothing complains, and the slider moves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chromium import Chromium, Page
from steepest.data.rows import MEMORY
from steepest.diagnosis.animation import animate
from steepest.diagnosis.landscape import Landscape, landscape
from steepest.diagnosis.report import write_report
from steepest.settings import Settings
from steepest.trials.comparing import compare
from steepest.trials.tuning import tune
from test_report import HOSTILE, edge_histories, make_record

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed (apt-get install chromium)")

WALKED = "document.getElementById('line-0').points.numberOfItems"
SHOWN = "document.getElementById('shown').textContent"
SNAPSHOTS = 12


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(str(PROGRAM), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from test_figures import POINTS, SEARCH, steps_with_ratios

    record = make_record("binary") | {
        "learning_rate": SEARCH,
        "curvature": POINTS,
        "findings": [{"finding": "plateau", "severity": "warning", "evidence": "x", "try": HOSTILE}],
    }
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, record, steps_with_ratios(), edge_histories()["no validation"][1])
    return path


def scene() -> Landscape:
    falls = 3.0 * 0.7 ** np.arange(SNAPSHOTS)
    paths = {HOSTILE: np.stack([falls, -falls], 1), "waits": np.stack([falls, falls], 1)[:3]}
    return landscape(lambda p: p[0] ** 2 + 3 * p[1] ** 2, paths, points=9)


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("animation") / "descent.html"
    animate(scene(), path)
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).normal(size=(90, 2))
    table = {"a": x[:, 0], "b": x[:, 1], HOSTILE: x @ [1.0, -2.0]}
    out = tmp_path_factory.mktemp("comparison") / "compared"
    wanted = Settings(MEMORY, HOSTILE, learning_rate=0.1, epochs=4)
    return compare(wanted, [{"batch_size": 9}, {"optimizer": "sgd"}], table, out=out).path / "report.html"


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).normal(size=(90, 2))
    out = tmp_path_factory.mktemp("tuning") / "tuned"
    tune(Settings(MEMORY, HOSTILE, epochs=4), {"a": x[:, 0], HOSTILE: x @ [1.0, -2.0]}, out=out)
    return out / "report.html"


def contrast(page: Page, element: str, ground: str, colour: str = "fill") -> float:
    """Return the WCAG contrast of two elements' computed colours."""

    def luminance(selector: str, what: str) -> float:
        found = page.value(f"getComputedStyle(document.querySelector({selector!r})).{what}")
        channels = np.array([float(part) for part in found[found.index("(") + 1 : -1].split(",")][:3]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted([luminance(element, colour), luminance(ground, "backgroundColor")], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("name", ["report", "animation", "comparison", "tuning"])
def test_a_page_loads_nothing_fits_and_can_be_read(browser, request, name, width, dark):
    file = request.getfixturevalue(name)
    page = Page(browser, file, width=width, dark=dark)
    assert page.complaints() == []
    assert page.requests() == [file.as_uri()]
    assert page.value("document.documentElement.scrollWidth") <= width
    assert contrast(page, "figure svg text", "figure") > 7
    assert contrast(page, "figcaption", "figure", "color") > 4.5
    brightness = page.value("getComputedStyle(document.body).backgroundColor")
    assert brightness == ("rgb(20, 24, 27)" if dark else "rgb(252, 252, 250)")


def test_a_comparison_leads_to_its_moving_picture(browser, comparison):
    page = Page(browser, comparison)
    there = page.value("document.querySelector('a[href=\"animation.html\"]').href")
    assert there == (comparison.parent / "animation.html").as_uri()
    moving = Page(browser, comparison.parent / "animation.html")
    moving.press("Tab", 9)
    moving.press("Tab", 9)
    moving.press("Home", 36)
    assert moving.value(WALKED) == 1
    assert moving.complaints() == []
    names = " ".join(picture["name"]["value"] for picture in page.pictures())
    for title in ("Loss by step", "Loss by rows seen", "Loss by seconds", "seen from above"):
        assert title in names


def test_every_picture_has_a_name_and_a_description(browser, report, animation):
    pictures = [*Page(browser, report).pictures(), *Page(browser, animation).pictures()]
    assert len(pictures) == 13
    for picture in pictures:
        assert len(picture["name"]["value"]) > 20
    names = " ".join(picture["name"]["value"] for picture in pictures)
    for title in ("Learning rates tried", "Update ratio", "Largest curvature", "seen from above"):
        assert title in names


def test_the_slider_moves_the_paths_by_keyboard(browser, animation):
    page = Page(browser, animation)
    assert (page.value(SHOWN), page.value(WALKED)) == ("12 of 12", SNAPSHOTS)
    page.press("Tab", 9)
    page.press("Tab", 9)
    assert page.value("document.activeElement.id") == "snapshot"
    page.press("ArrowLeft", 37)
    assert (page.value(SHOWN), page.value(WALKED)) == ("11 of 12", SNAPSHOTS - 1)
    page.press("Home", 36)
    assert (page.value(SHOWN), page.value(WALKED)) == ("1 of 12", 1)
    assert page.value("document.activeElement.getAttribute('aria-valuetext')") == "snapshot 1 of 12"
    assert page.value("document.getElementById('loss-0').textContent") == "36.00"
    start = page.value("document.getElementById('end-0').getAttribute('cx')")
    page.press("End", 35)
    assert page.value("document.getElementById('end-0').getAttribute('cx')") != start
    # The path that is over waits at its end.
    assert page.value("document.getElementById('line-1').points.numberOfItems") == SNAPSHOTS
    assert page.value("document.getElementById('loss-1').textContent") == "8.644"
    assert page.complaints() == []


def test_it_plays_when_asked_and_by_itself_only_for_those_who_like_it(browser, animation):
    still = Page(browser, animation, still=True)
    assert still.value("playing") is None
    still.press("Tab", 9)
    still.press(" ", 32)
    assert still.value("document.getElementById('play').textContent") == "Pause"
    still.becomes("Number(slider.value) > 0 && Number(slider.value) < last", True)
    still.press(" ", 32)
    assert still.value("[playing, document.getElementById('play').textContent]") == [None, "Play"]
    moving = Page(browser, animation, still=False)
    assert moving.value("playing !== null") is True
    moving.value("show(last - 2)")
    moving.becomes("[playing, Number(slider.value)]", [None, SNAPSHOTS - 1])
    assert moving.complaints() == still.complaints() == []


def test_without_scripts_the_whole_picture_stands(browser, animation):
    page = Page(browser, animation, scripts=False)
    assert page.value("document.getElementById('controls').hidden") is True
    assert page.value(WALKED) == SNAPSHOTS


def test_names_are_text(browser, animation):
    page = Page(browser, animation)
    assert page.value("document.querySelector('tbody th').textContent").startswith('<script>alert("1")')
    assert page.value("document.scripts.length") == 2


def test_a_complaint_and_a_request_would_be_seen(browser, tmp_path):
    file = tmp_path / "bad.html"
    file.write_text(
        "<meta http-equiv=Content-Security-Policy content=\"img-src 'none'\"><img src='http://example.org/a.png'>"
        "<script src='http://example.org/b.js'></script><script>missing()</script>"
    )
    page = Page(browser, file)
    assert "http://example.org/b.js" in page.requests()
    assert len(page.complaints()) >= 3
