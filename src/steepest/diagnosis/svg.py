"""The look of the figures, and a figure as SVG inside a page."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as Xml

import matplotlib as mpl
from matplotlib.figure import Figure

# The first two are of Okabe and Ito's colour-blind safe palette; the others keep a contrast of 3 to 1.
PALETTE = {
    "training": ("#0072b2", "#4fb0e8"),
    "validation": ("#d55e00", "#f0803a"),
    "green": ("#00835d", "#3fcf9f"),
    "purple": ("#a3478a", "#e58fcb"),
    "ochre": ("#a67c00", "#e0b84a"),
    "indigo": ("#5a4fcf", "#a79ff5"),
    "brown": ("#7b4a2d", "#cf9f78"),
}
PAGE = {
    "ground": ("#fcfcfa", "#14181b"),
    "raised": ("#ffffff", "#1b2024"),
    "ink": ("#1d2328", "#e6e9eb"),
    "quiet": ("#5c666f", "#9ba6ae"),
    "line": ("#e2e4e3", "#30383e"),
    "accent": ("#00639c", "#6bb8e8"),
    "better": ("#00704f", "#45c49a"),
    "worse": ("#a84300", "#f08c4a"),
}
"""By the name of a custom property: the colour on a light ground, and on a dark one."""
TEXT, TRAINING, VALIDATION = "#010203", PALETTE["training"][0], PALETTE["validation"][0]
VARIANTS = (*(light for light, _ in PALETTE.values()), TEXT)
WIDTH = 4.2  # inches: letters keep their size on a telephone
ON_THE_PAGE = {TEXT: "currentColor"} | {
    light: f"var(--{name}, {light})" for name, (light, _) in PALETTE.items()
}
STYLE: Any = {
    "axes.edgecolor": TEXT,
    "axes.formatter.useoffset": False,
    "axes.labelcolor": TEXT,
    "axes.labelsize": 9,
    "axes.linewidth": 0.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.figsize": (WIDTH, 2.8),
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": TEXT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "steepest",
    "text.color": TEXT,
    "text.parse_math": False,
    "xtick.color": TEXT,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.5,
    "ytick.color": TEXT,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.5,
}


@contextlib.contextmanager
def any_letters() -> Iterator[None]:
    """Lay names out inside this context, also those whose letters Matplotlib's own font lacks."""
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the project's look inside this context, and leave Matplotlib's settings as they were."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def colours(*, dark: bool) -> str:
    """Return the colours of pages and figures on a light or a dark ground, as CSS custom properties.

    Examples
    --------
    >>> colours(dark=True)
    '--ground: #14181b; ... --training: #4fb0e8; ...'
    """
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in (PAGE | PALETTE).items())


def svg(figure: Figure, *, title: str, description: str) -> str:
    """Return the figure as SVG to stand in an HTML page.

    The ground is transparent and text and axes have the page's own colour, so the figure follows a light or a
    dark theme; the page's font is used. The same figure gives the same bytes, and ids begin with a digest of
    the content, so that several figures can share a page. It refers to nothing outside itself.

    Parameters
    ----------
    figure
        Drawn in this module's `style`.
    title, description
        What a screen reader says: the name of the picture and what it shows.
    """
    buffer = io.BytesIO()
    with any_letters():  # only measured here: the reader's browser has them
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    prefix = "f" + hashlib.sha256(drawing + repr((title, description)).encode()).hexdigest()[:12]
    root = Xml.fromstring(drawing)  # noqa: S314 - written by Matplotlib a line above
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        element.attrib = {
            name.partition("}")[2] or name: _inlined(name, value, prefix)
            for name, value in element.attrib.items()
        }
        _share_style(element)
    for holder in list(root.iter()):
        for element in [
            *holder.findall("metadata"),
            *holder.findall("style"),
        ]:  # a style would hold page-wide
            holder.remove(element)
    for tag, text in (("desc", description), ("title", title)):
        child = Xml.Element(tag, {"id": f"{prefix}-{tag}"})
        child.text = clean(text, 1000)
        root.insert(0, child)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "style": "stroke-linejoin: round",
        "aria-labelledby": f"{prefix}-title {prefix}-desc",
    }
    return Xml.tostring(root, encoding="unicode")


def clean(name: Any, most: int) -> str:
    """Shorten a name from data, and replace what an XML text may not hold.

    Examples
    --------
    >>> clean("departure delay", 10)
    'departure…'
    """
    text = re.sub(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(name))
    return text if len(text) <= most else text[: most - 1] + "…"


def _inlined(name: str, value: str, prefix: str) -> str:
    """Adapt one attribute of Matplotlib's SVG to a page: ids of its own, the page's colour and font."""
    if name == "id":
        return f"{prefix}-{value}"
    if name.endswith("href"):
        return f"#{prefix}-{value.removeprefix('#')}"
    if name == "style":
        value = re.sub(r"font: ([0-9.]+px)[^;]*", r"font-size: \1", value)  # before Matplotlib 3.11
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        for drawn, shown in ON_THE_PAGE.items():
            value = value.replace(drawn, shown)
        return value
    if name in ("d", "x", "y"):
        value = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
    return value.replace("url(#", f"url(#{prefix}-")


def _share_style(group: Xml.Element) -> None:
    """Write the style that all marks of a group have in common once, at the group."""
    styles = {child.get("style") for child in group if child.tag.endswith("use")}
    if len(group) > 1 and len(styles) == 1 and all(child.tag.endswith("use") for child in group):
        group.set("style", styles.pop() or "")
        for child in group:
            child.attrib.pop("style", None)
