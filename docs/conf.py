"""The site: every page here, the benchmarks and the changelog, and the reference from the docstrings.

Written for ``sphinx-build --conf-dir docs . build/site``: the sources are those of the repository's root, so
that links between pages are the same on the site and on a code host. Nothing is fetched, neither here nor by
a reader.
"""

from __future__ import annotations

import builtins
import importlib
import os
import re
import tomllib
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.nodes import get_node_source

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.application import Sphinx

os.environ.setdefault("KERAS_BACKEND", "jax")

ROOT = Path(__file__).parents[1]

project = "Steepest"
author = "The Steepest maintainers"
version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "data", "runs", "src", "tests"]

myst_heading_anchors = 3
myst_enable_extensions = ["fieldlist"]

autodoc_preserve_defaults = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
default_role = "py:obj"

html_theme = "furo"
html_title = "Steepest"
html_extra_path = ["_site"]
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Let names that the site has no page for stand as they are."""
    app.connect("missing-reference", _as_it_stands)


def _as_it_stands(_app: Sphinx, _env: Any, node: Element, text: Element) -> Element | None:
    """Return a name without a link if there is such a thing; anything else is a warning, and that an error.

    Inner modules have no page here, and other packages' pages would have to be fetched to be known.
    """
    if node["refdomain"] != "py":
        return None
    place = re.search(r"docstring of ([\w.]+)", get_node_source(node) or "")
    homes = list(accumulate(place[1].split("."), "{}.{}".format)) if place else []
    names = [node["reftarget"], *(f"{home}.{node['reftarget']}" for home in homes)]
    return text if any(map(_exists, names)) else None


def _exists(name: str) -> bool:
    first, *parts = name.split(".")
    if hasattr(builtins, first):
        return True
    try:
        found: Any = importlib.import_module(first)
        for part in parts:
            if part in getattr(found, "__annotations__", {}):
                return True
            first += f".{part}"
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(first)
    except ImportError:
        return False
    return True
