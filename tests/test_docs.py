"""The documentation says what is."""

from __future__ import annotations

import importlib.util
import itertools
import re
import tomllib
from pathlib import Path

import steepest

ROOT = Path(__file__).parents[1]


def test_the_page_of_the_command_line_is_fresh():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.PAGE.read_text("utf-8") == generate.render(), "run: python docs/generate.py"


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.match(r"[A-Za-z0-9_-]+", each)[0].lower() for each in wanted}
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8").lower()
    reasons = page[page.index("## dependencies") :]
    titles = {"torch": "pytorch"}
    assert {name for name in names if titles.get(name, name) not in reasons} == set()


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_version_is_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert steepest.__version__ == project["version"]


def test_public_names_load():
    for name in steepest.__all__:
        assert getattr(steepest, name) is not None
