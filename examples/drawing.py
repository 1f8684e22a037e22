"""What the examples' pictures share: where they go, and how fine they are."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

DOTS_PER_INCH = 150


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a picture into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
