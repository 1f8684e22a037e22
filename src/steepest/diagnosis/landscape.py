"""The descent seen from above: the loss around the paths that descents took.

A path of many parameters is seen in the plane of its two main directions, as Li et al. draw it ("Visualizing
the loss landscape of neural nets", arXiv 1712.09913, section 7). The loss on the plane is the true one; the
paths are projected onto it. With one or two parameters nothing is projected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import SteepestError

Floats = NDArray[np.float64]
Numbers = list[float | None]

MARGIN = 0.2
"""Room around the paths, as a share of their extent."""

NARROWEST = 0.05
"""The least extent of an axis, as a share of the other's."""

NOTHING = 1e-12
"""A direction with less of the movement is rounding only."""

COLUMNS = 2**16
"""Parameters that are looked at together while the main directions are found."""


@dataclass(frozen=True)
class Trail:
    """A descent's snapshots seen from above, ``[snapshots]`` each; ``None`` where not finite.

    Attributes
    ----------
    x, y
        Where the snapshot lies on the plane.
    loss
        The true loss at the snapshot itself, which may lie off the plane.
    """

    x: Numbers
    y: Numbers
    loss: Numbers


@dataclass(frozen=True)
class Landscape:
    """The loss on a plane and the paths upon it, in plain JSON types.

    Attributes
    ----------
    x, y
        Places along the axes; ``y`` is ``[0.0]`` where there is one parameter only.
    losses
        ``[y][x]``, ``None`` where not finite.
    paths
        By the variant's name.
    explained
        The share of the paths' squared distance from the first variant's end that lies in the plane.
    labels
        What the axes are, in words.
    """

    x: list[float]
    y: list[float]
    losses: list[Numbers]
    paths: dict[str, Trail]
    explained: float
    labels: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, which `landscape_from_json` reads."""
        return asdict(self)


def landscape_from_json(stored: Mapping[str, Any]) -> Landscape:
    """Return the landscape that was stored."""
    trails = {name: Trail(**trail) for name, trail in stored["paths"].items()}
    return Landscape(**{**stored, "paths": trails})


def landscape(
    loss: Callable[..., Any], paths: Mapping[str, Any], batch: Any = None, *, points: int = 60
) -> Landscape:
    """Measure the loss around the paths of descents.

    The plane goes through the end of the first path, along the two main directions of all snapshots'
    differences from it. It is as large as the paths that stay near. A snapshot that is further above the
    highest start than the lowest snapshot is below has left the picture, if any is below, and counts for
    neither.

    Parameters
    ----------
    loss
        ``loss(parameters)`` or, with a batch, ``loss(parameters, batch)``: a JAX function to one number.
    paths
        By each variant's name its snapshots, start and end included: parameters as ``loss`` takes them,
        each array with the snapshots as a further first axis.
    batch
        Rows on which to measure the loss: the fewer, the faster.
    points
        Places along each axis. All are measured by one compiled program, one after the other, so memory
        doesn't grow with them.

    Raises
    ------
    SteepestError
        If there is no path, the paths are not of the same parameters, or no snapshot has a finite loss.

    Examples
    --------
    >>> bowl = lambda p: p[0] ** 2 + 4 * p[1] ** 2
    >>> seen = landscape(bowl, {"descent": np.array([[3.0, 1.0], [1.5, -0.5], [0.0, 0.0]])}, points=3)
    >>> seen.labels, seen.explained, seen.paths["descent"].loss
    (['parameter 1', 'parameter 2'], 1.0, [13.0, 3.25, 0.0])
    >>> np.round(seen.x, 1).tolist(), np.round(seen.y, 1).tolist()
    ([-0.6, 1.5, 3.6], [-0.8, 0.2, 1.3])
    """
    flat = _flat_paths(paths)
    on_plane, at_snapshots = _programs(loss, next(iter(paths.values())), batch)
    heights = {name: at_snapshots(path) for name, path in flat.items()}
    near = _near(heights)
    drawn = [path[near[name]] for name, path in flat.items() if near[name].any()]
    plane = _plane(np.concatenate(drawn), len(drawn[0]) - 1, paths)
    places = {name: plane.project(path) for name, path in flat.items()}
    x, y = _frame(np.concatenate([place[near[name]] for name, place in places.items()]), points)
    if len(plane.origin) == 1:
        y = np.zeros(1)
    losses = on_plane(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2), plane)
    return Landscape(
        x=x.tolist(),
        y=y.tolist(),
        losses=[_numbers(row) for row in losses.reshape(len(y), len(x))],
        paths={
            name: Trail(_numbers(place[:, 0]), _numbers(place[:, 1]), _numbers(heights[name]))
            for name, place in places.items()
        },
        explained=plane.explained,
        labels=plane.labels,
    )


@dataclass(frozen=True)
class _Plane:
    """``origin + x · directions[0] + y · directions[1]``, of parameters in one vector."""

    origin: Floats
    directions: Floats
    explained: float
    labels: list[str]

    def project(self, path: NDArray[Any]) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            return (path.astype(np.float64) - self.origin) @ self.directions.T


def _flat_paths(paths: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Lay each snapshot's parameters in one vector: ``[snapshots, parameters]``."""
    import jax

    if not paths:
        raise SteepestError("There is no path to draw.", hint="Give each variant's snapshots by its name.")
    flat: dict[str, NDArray[Any]] = {}
    for name, path in paths.items():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(path)]
        lengths = {leaf.shape[:1] for leaf in leaves}
        if lengths in (set(), {()}, {(0,)}) or len(lengths) > 1:
            raise SteepestError(
                f"The path {name!r} has no snapshots, or not as many in each of its arrays.",
                hint="Stack the snapshots along a first axis of each array.",
            )
        flat[name] = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    widths = {name: path.shape[1] for name, path in flat.items()}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name!r} {width:,}" for name, width in widths.items())
        raise SteepestError(
            f"The paths are not of the same parameters; they have: {listed}.",
            hint="Draw variants of one model only.",
        )
    return flat


def _programs(
    loss: Callable[..., Any], path: Any, batch: Any
) -> tuple[Callable[[Floats, _Plane], Floats], Callable[[NDArray[Any]], Floats]]:
    """Return what measures the loss at places on a plane, and at snapshots, one after the other."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    first, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], path))

    def at(vector: jax.Array, rows: Any) -> jax.Array:
        parameters = unravel(vector.astype(first.dtype))
        return jnp.asarray(loss(parameters) if batch is None else loss(parameters, rows))

    @jax.jit
    def over_plane(places: jax.Array, origin: jax.Array, directions: jax.Array, rows: Any) -> jax.Array:
        # No matrix product: on some devices it rounds its factors.
        def at_place(place: jax.Array) -> jax.Array:
            return at(origin + place[0] * directions[0] + place[1] * directions[1], rows)

        losses: jax.Array = jax.lax.map(at_place, places)
        return losses

    @jax.jit
    def over_snapshots(vectors: jax.Array, rows: Any) -> jax.Array:
        losses: jax.Array = jax.lax.map(lambda vector: at(vector, rows), vectors)
        return losses

    def on_plane(places: Floats, plane: _Plane) -> Floats:
        numbers = (array.astype(first.dtype) for array in (places, plane.origin, plane.directions))
        return np.asarray(over_plane(*numbers, batch), np.float64)

    def at_snapshots(vectors: NDArray[Any]) -> Floats:
        return np.asarray(over_snapshots(vectors, batch), np.float64)

    return on_plane, at_snapshots


def _near(heights: Mapping[str, Floats]) -> dict[str, NDArray[np.bool_]]:
    """Tell which snapshots are not much higher than the highest start; if nothing fell, which are finite."""
    finite = [losses[np.isfinite(losses)] for losses in heights.values()]
    finite = [losses for losses in finite if len(losses)]
    if not finite:
        raise SteepestError(
            "No snapshot of any path has a finite loss.", hint="Draw the path before it diverged."
        )
    start, lowest = max(losses[0] for losses in finite), min(losses.min() for losses in finite)
    limit = start + (start - lowest) if lowest < start else np.finfo(np.float64).max
    return {name: losses <= limit for name, losses in heights.items()}


def _plane(snapshots: NDArray[Any], end: int, paths: Mapping[str, Any]) -> _Plane:
    """Return the plane through one of the snapshots, along the two main directions of all of them.

    The squares of the differences' singular values are the eigenvalues of their Gram matrix, which is as
    small as the snapshots are few.
    """
    count, width = snapshots.shape
    if width <= 2:
        return _Plane(np.zeros(width), np.eye(2, width), 1.0, _parameter_labels(paths, width))
    origin = snapshots[end].astype(np.float64)
    parts = [slice(start, start + COLUMNS) for start in range(0, width, COLUMNS)]
    gram = np.zeros((count, count))
    for part in parts:
        difference = snapshots[:, part] - origin[part]
        gram += difference @ difference.T
    squares, vectors = np.linalg.eigh(gram)
    total = max(float(np.trace(gram)), np.finfo(np.float64).tiny)
    main, shares = np.zeros((2, width)), [0.0, 0.0]
    for place in range(min(count, 2)):
        share = float(squares[-1 - place]) / total
        if share > NOTHING:
            shares[place] = share
            for part in parts:
                main[place, part] = vectors[:, -1 - place] @ (snapshots[:, part] - origin[part])
    labels = [
        f"{name} direction: {share:.1%} of the movement"
        for name, share in zip(("main", "second"), shares, strict=True)
    ]
    explained = min(sum(shares), 1.0) if any(shares) else 1.0
    return _Plane(origin, _orthonormal(main, snapshots[0] - origin), explained, labels)


def _orthonormal(main: Floats, start: Floats) -> Floats:
    """Make two directions of length one, at right angles, that see the start to the upper left.

    In place of a direction in which nothing moved comes the first or second parameter.
    """
    first, second = main
    if not first.any():
        first[0] = 1.0
    first /= np.linalg.norm(first)
    if not second.any():
        second[np.argmin(np.abs(first[:2]))] = 1.0
    second -= (second @ first) * first
    second /= np.linalg.norm(second)
    return np.stack([-first if first @ start > 0 else first, -second if second @ start < 0 else second])


def _frame(places: Floats, points: int) -> tuple[Floats, Floats]:
    """Return where the grid's points lie along each axis, with room around the places."""
    low, high = places.min(axis=0), places.max(axis=0)
    extent = high - low
    widest = extent.max() or 1.0
    half = (0.5 + MARGIN) * np.maximum(extent, NARROWEST * widest)
    x, y = np.linspace((low + high) / 2 - half, (low + high) / 2 + half, points).T
    return x, y


def _parameter_labels(paths: Mapping[str, Any], width: int) -> list[str]:
    """Name one or two parameters as the caller's pytree does."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(next(iter(paths.values())))
    labels = []
    for place, leaf in leaves:
        name = jax.tree_util.keystr(place, simple=True, separator=".") or "parameter"
        size = int(np.prod(np.shape(leaf)[1:]))
        labels += [f"{name} {index}" for index in range(1, size + 1)] if size > 1 else [name]
    return [*labels, ""][: max(width, 2)]


def _numbers(values: Floats) -> Numbers:
    return [float(value) if np.isfinite(value) else None for value in values]
