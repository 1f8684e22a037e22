"""The site: it builds without a warning, all its links lead somewhere, and it fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

import steepest
import steepest.keras
import steepest.sklearn
import steepest.spark
from steepest.descent.losses import LOSSES
from steepest.descent.schedules import SCHEDULES
from test_docs import ROOT

LOADING = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}
"""What makes a browser fetch something; links that a reader may follow are ``a``."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--conf-dir", "docs"]
    words = [sys.executable, "-m", "sphinx", *strict, "--doctree-dir", folder / "trees", ".", folder / "site"]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "site"


class Seen(HTMLParser):
    """What a page refers to, loads, and can be referred to by."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif (tag, name) in LOADING:
                self.loaded.add(value)
            elif (tag, name) == ("a", "href"):
                self.links.add(value)


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Seen]:
    return {page: Seen(page) for page in site.rglob("*.html")}


def test_links_and_anchors_lead_somewhere(pages):
    lost = []
    for page, seen in pages.items():
        for link in seen.links | seen.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                lost.append((page.name, link))
    assert not lost


def test_nothing_is_fetched_from_elsewhere(site, pages):
    assert not [each for seen in pages.values() for each in seen.loaded if urlsplit(each).netloc]
    styles = "".join(style.read_text("utf-8") for style in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']+", styles)


def test_every_page_is_there(site, pages):
    sources = [*ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md", ROOT / "CHANGELOG.md"]
    wanted = {site / source.relative_to(ROOT).with_suffix(".html") for source in sources}
    assert wanted <= pages.keys()
    assert (site / "index.html") in pages


def test_every_public_name_is_in_the_reference(site):
    known = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    names = {name for kind, found in known.items() if kind.startswith("py:") for name in found}
    modules = (steepest, steepest.keras, steepest.sklearn, steepest.spark, steepest.plot)
    wanted = {f"{module.__name__}.{name}" for module in modules for name in module.__all__}
    wanted |= {f"steepest.losses.{name}" for name in LOSSES} | {
        f"steepest.schedules.{name}" for name in SCHEDULES
    }
    on_pages_of_their_own = {f"steepest.{name}" for name in ("losses", "models", "plot", "schedules")}
    assert wanted - names - on_pages_of_their_own == set()
