"""The pictures of gradient-descent.md are those that its script draws, and small."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from code_blocks import ROOT

MOST_BYTES = 100_000
COARSE = (120, 80)
MOST_DIFFERENT = 12
"""Of 255, where one coarse pixel differs most: letters may be set a little otherwise, lines not."""


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coarse(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize(COARSE, Image.Resampling.BOX), float)


@pytest.mark.slow
def test_they_are_what_the_script_draws(pictures, tmp_path):
    pictures.main(tmp_path)
    stale = {
        drawn.name: np.abs(coarse(drawn) - coarse(pictures.FOLDER / drawn.name)).max()
        for drawn in tmp_path.glob("*.png")
    }
    assert len(stale) == len(pictures.PICTURES)
    assert {name for name, most in stale.items() if most > MOST_DIFFERENT} == set(), stale


def test_each_is_small_and_on_the_page(pictures):
    page = (ROOT / "docs" / "gradient-descent.md").read_text("utf-8")
    kept = {path.stem: path.stat().st_size for path in pictures.FOLDER.glob("*.png")}
    assert kept.keys() == pictures.PICTURES.keys()
    assert max(kept.values()) < MOST_BYTES
    assert all(f"](pictures/{name}.png)" in page for name in kept)
