"""A run's model as a file of another system, by the file's ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steepest.data.writing import aside
from steepest.errors import SteepestError
from steepest.export.description import own_shape
from steepest.run import Run


def write(run: Run, out: Path) -> dict[str, str]:
    """Write the file: see `steepest.export.to_file`."""
    ending = out.suffix.lower()
    if ending not in WRITERS:
        raise SteepestError(f"{out} names no format.", hint=f"Name a file that ends in {ENDINGS}.")
    if out.resolve().is_relative_to(run.path.resolve()):
        raise SteepestError(f"{out} is within the run; it is left as it is.", hint="Choose another --out.")
    with aside(out) as partial:
        return WRITERS[ending](run, partial)


def _onnx(run: Run, path: Path) -> dict[str, str]:
    from steepest.export import to_onnx
    from steepest.export.inputs import beyond

    path.write_bytes(to_onnx(run).SerializeToString())
    return beyond(run.plan)


def _keras(run: Run, path: Path) -> dict[str, str]:
    from steepest.export import to_keras

    to_keras(run).save(path)
    return {}


def _safetensors(run: Run, path: Path) -> dict[str, str]:
    from safetensors.numpy import save_file

    from steepest.export.safetensors import flat, metadata_of

    metadata = metadata_of(run, own_shape(run, "one file of safetensors"))
    save_file(flat(run.parameters), path, metadata)
    return {}


WRITERS: dict[str, Callable[[Run, Path], dict[str, str]]] = {
    ".onnx": _onnx,
    ".keras": _keras,
    ".safetensors": _safetensors,
}
"""Ending of a file -> what writes it, and returns the columns whose plan is not in it, and why."""

ENDINGS = ".onnx, .keras or .safetensors"
