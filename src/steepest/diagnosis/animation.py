"""The descent seen from above, moving: a GIF, or a page with a slider that needs no network."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from steepest.diagnosis.landscape import Landscape
from steepest.diagnosis.pages import number, render
from steepest.diagnosis.plots.above import draw_start, ground, places
from steepest.diagnosis.plots.axes import Floats, Look, finite, key, label, looks_of
from steepest.diagnosis.svg import ON_THE_PAGE, any_letters, clean, svg
from steepest.errors import SteepestError

TITLE = "The descent seen from above"
MOST_FRAMES = 100
DURATION = 6.0  # seconds from start to end
REST = 1500  # milliseconds that a GIF shows the end
GIF_DPI = 150
LINE = 1.6  # points


def animate(landscape: Landscape, path: str | os.PathLike[str]) -> None:
    """Write the paths' way through the landscape as a moving picture.

    Of more than 100 snapshots, 100 are shown, spread evenly from the first to the last. A path with fewer
    snapshots than others waits at its end.

    Parameters
    ----------
    landscape
        What `landscape` measured.
    path
        The file to write: ``.gif``, or ``.html`` for one page with a slider and a button that plays it,
        which loads nothing, works by keyboard, in light and dark, and stands still for readers who prefer
        that.

    Raises
    ------
    SteepestError
        If the file's name ends otherwise, or there are more paths than can be told apart (8).
    """
    file = Path(path)
    write = {".gif": _write_gif, ".html": _write_page}.get(file.suffix.lower())
    if write is None:
        raise SteepestError(
            f"An animation can't be written to {file.name!r}.", hint="Let the name end in .gif or .html."
        )
    write(landscape, file)


def _snapshots(landscape: Landscape) -> list[int]:
    """Return which snapshots are shown, counted from 0."""
    longest = max(len(trail.loss) for trail in landscape.paths.values())
    shown: list[int] = np.linspace(0, longest - 1, min(longest, MOST_FRAMES)).round().astype(int).tolist()
    return shown


def _write_gif(landscape: Landscape, file: Path) -> None:
    """Draw the ground once, and on it the paths of each frame; all frames share the last one's colours."""
    from PIL import Image

    figure, axes = ground(landscape)
    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(GIF_DPI)
    looks = looks_of(len(landscape.paths))
    lines = [
        axes.plot([], [], color=look.colour, linestyle=look.line, label=label(name))[0]
        for name, look in zip(landscape.paths, looks, strict=True)
    ]
    ends = [axes.plot([], [], "o", markersize=5, color=look.colour, zorder=4)[0] for look in looks]
    ways = [places(landscape, name) for name in landscape.paths]
    for way, look in zip(ways, looks, strict=True):
        draw_start(axes, way, look)
    snapshots, frames = _snapshots(landscape), []
    with any_letters():
        key(axes)
        canvas.draw()
        empty = canvas.copy_from_bbox(figure.bbox)
        for last in snapshots:
            canvas.restore_region(empty)
            for way, line, end in zip(ways, lines, ends, strict=True):
                walked = way[: last + 1]
                line.set_data(*walked.T)
                end.set_data(*walked[np.isfinite(walked).all(axis=1)][-1:].T)
                axes.draw_artist(line)
                axes.draw_artist(end)
            frames.append(Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB"))
    colours = frames[-1].quantize(256)
    moving = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    milliseconds = round(1000 * _pause(len(frames)))
    moving[0].save(
        file, "GIF", save_all=True, append_images=moving[1:], loop=0,
        duration=[milliseconds] * (len(frames) - 1) + [REST],
    )  # fmt: skip


def _write_page(landscape: Landscape, file: Path) -> None:
    snapshots = _snapshots(landscape)
    figure, axes = ground(landscape)
    with any_letters():
        figure.set_dpi(72)  # an SVG's unit
        _freeze(figure)
    looks = looks_of(len(landscape.paths))
    paths = [
        {
            "name": clean(name, 60),
            "style": _stroke(look),
            "points": _points(axes, places(landscape, name), snapshots),
            "losses": _losses(finite(landscape.paths[name].loss), snapshots),
        }
        for name, look in zip(landscape.paths, looks, strict=True)
    ]
    caption = _caption(landscape)
    drawing = svg(figure, title=TITLE, description=caption).removesuffix("</svg>")
    script = importlib.resources.files(__package__).joinpath("animation.js").read_text("utf-8")
    page = render(
        "diagnosis/animation.html.jinja",
        title=TITLE,
        caption=caption,
        picture=Markup(drawing) + _overlay(figure, axes, paths, looks) + Markup("</svg>"),  # noqa: S704
        paths=paths,
        scene={
            "snapshots": [shown + 1 for shown in snapshots],
            "milliseconds": round(1000 * _pause(len(snapshots))),
            "paths": [{"points": each["points"], "losses": each["losses"]} for each in paths],
        },
        script=Markup(script),  # noqa: S704
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    file.write_text(page, encoding="utf-8", newline="\n")


def _freeze(figure: Figure) -> None:
    """Lay the figure out once and for all."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _pause(frames: int) -> float:
    """Return the seconds that a frame is shown."""
    return min(max(DURATION / frames, 0.05), 0.5)


def _points(axes: Axes, way: Floats, snapshots: list[int]) -> list[list[float] | None]:
    """Return where the shown snapshots are in the SVG, whose y points down; None where not finite."""
    height = axes.figure.get_figure(root=True).get_figheight() * 72
    shown = way[np.minimum(snapshots, len(way) - 1)]
    across, up = axes.transData.transform(np.where(np.isfinite(shown), shown, 0)).T
    known = np.isfinite(shown[:, 0]) & np.isfinite(shown[:, 1])
    return [
        [round(float(x), 2), round(height - float(y), 2)] if drawn else None
        for x, y, drawn in zip(across, up, known, strict=True)
    ]


def _losses(losses: Floats, snapshots: list[int]) -> list[str]:
    shown = losses[np.minimum(snapshots, len(losses) - 1)]
    return [number(loss) if np.isfinite(loss) else "not finite" for loss in shown.tolist()]


def _stroke(look: Look) -> str:
    dashes = "" if look.line == "-" else " ".join(f"{LINE * length:g}" for length in look.line[1])
    colour = ON_THE_PAGE[look.colour]
    return f"fill: none; stroke: {colour}; stroke-width: {LINE}; stroke-dasharray: {dashes or 'none'}"


def _overlay(figure: Figure, axes: Axes, paths: list[dict[str, Any]], looks: tuple[Look, ...]) -> Markup:
    """Return the paths, complete as they are without a script, within the axes' frame."""
    left, bottom, width, height = axes.get_window_extent().bounds
    top = figure.get_figheight() * 72 - bottom - height
    drawn = Markup(
        '<clipPath id="within"><rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/></clipPath>'
        '<g clip-path="url(#within)">'
    ).format(left, top, width, height)
    for index, (path, look) in enumerate(zip(paths, looks, strict=True)):
        walked = [point for point in path["points"] if point]
        walked = walked or [[-9.0, -9.0]]  # out of sight
        colour = ON_THE_PAGE[look.colour]
        points = " ".join(f"{x},{y}" for x, y in walked)
        drawn += Markup(
            '<polyline id="line-{0}" points="{1}" style="{2}"/>'
            '<circle cx="{3[0]}" cy="{3[1]}" r="3.5" style="fill: none; stroke: {5}; stroke-width: 1.2"/>'
            '<circle id="end-{0}" cx="{4[0]}" cy="{4[1]}" r="3" style="fill: {5}"/>'
        ).format(index, points, path["style"], walked[0], walked[-1], colour)
    return drawn + Markup("</g>")


def _caption(landscape: Landscape) -> str:
    if len(landscape.y) == 1:
        seen = "The curve is the loss; each path runs from its ring to its disc."
    else:
        seen = (
            "Lines join places of the same loss, each the same factor higher above the lowest; each path "
            "runs from its ring to its disc."
        )
    if landscape.explained < 1:
        seen += (
            f" The plane holds {landscape.explained:.1%} of the movement; the rest is not seen, so a path "
            "may seem to lie higher or lower than it does."
        )
    return seen
