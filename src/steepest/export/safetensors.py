"""A run's parameters as safetensors whose metadata tell how predictions are computed of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from steepest.errors import SteepestError
from steepest.export.description import described
from steepest.run import Run, Shape

MOST_METADATA = 95_000_000
"""Bytes of metadata; readers of safetensors refuse a header of 100 MB."""


def metadata_of(run: Run, shape: Shape) -> dict[str, str]:
    """Return the metadata, each value as JSON.

    Raises
    ------
    SteepestError
        If they are too large: the vocabulary is among them.
    """
    plan = run.plan
    content = described(run) | {
        "model": asdict(shape),
        "features": list(plan.feature_names),
        "table": {name: [places.start, places.stop] for name, places in plan.sparse_groups.items()},
        **plan.to_json(),
    }
    metadata = {name: json.dumps(each, ensure_ascii=False) for name, each in content.items()}
    size = sum(len(each.encode()) for each in metadata.values())
    if size > MOST_METADATA:
        raise SteepestError(
            f"The column plan of {run.name} takes {size:,} bytes; the head of safetensors has room for"
            f" {MOST_METADATA:,}.",
            hint="Its model.safetensors and columns.json have all of it in two files.",
        )
    return metadata


def flat(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters by their names, such as ``layer_1.weights``."""
    arrays: dict[str, Any] = {}
    for layer, parts in parameters.items():
        arrays |= (
            {f"{layer}.{name}": each for name, each in parts.items()}
            if isinstance(parts, dict)
            else {layer: parts}
        )
    return arrays
