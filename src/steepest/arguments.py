"""What `steepest.minimize` was given, checked and turned into what the descent takes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steepest.errors import SteepestError

Array = np.ndarray[Any, Any]


def check_parameters(parameters: Any) -> Any:
    """Return the parameters as arrays of the device's floating types."""
    leaves = jax.tree.leaves(parameters)
    if not leaves:
        raise SteepestError("There are no parameters to descend on.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise SteepestError(
                f"The parameter {jax.tree_util.keystr(path) or 'given'} holds {jnp.result_type(leaf)}; "
                "a descent needs floating-point numbers.",
                hint="Write 0.0 instead of 0, or use astype(float).",
            )
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.result_type(leaf), copy=True), parameters)


def check_numbers(*, epochs: int, seed: int, tolerance: float) -> None:
    """Refuse numbers that no descent can have."""
    if not _whole(epochs) or epochs < 1:
        raise SteepestError(f"A descent needs at least one epoch; epochs={epochs}.")
    if not _whole(seed) or seed < 0:
        raise SteepestError(f"A seed is a whole number from 0; seed={seed}.")
    if not tolerance >= 0:
        raise SteepestError(f"The tolerance must be 0 or above; tolerance={tolerance}.")


def _whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def strengths(name: str, strength: Any, start: Any) -> Any:
    """Return a penalty's strength for each parameter, or None where there is no penalty."""
    if np.ndim(strength) == 0 and not isinstance(strength, (dict, list, tuple)):
        strength = jax.tree.map(lambda _: strength, start)
    if not _alike(strength, start):
        raise SteepestError(f"{name} must be a number, or a pytree of numbers like the parameters.")
    for each, leaf in zip(jax.tree.leaves(strength), jax.tree.leaves(start), strict=True):
        if np.shape(each) not in ((), leaf.shape):
            raise SteepestError(f"{name} must be a number for each parameter, or of the parameter's shape.")
    full = jax.tree.map(
        lambda each, leaf: jnp.broadcast_to(jnp.asarray(each, leaf.dtype), leaf.shape), strength, start
    )
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(full)])
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise SteepestError(f"{name} must be 0 or above.")
    return full if values.any() else None


def _alike(first: Any, second: Any) -> bool:
    return str(jax.tree.structure(first)) == str(jax.tree.structure(second))


def as_array(leaf: Any) -> Array:
    """Return data as an array of the type that the device will use."""
    array = np.asarray(leaf)
    if array.dtype.kind not in "biuf":
        raise SteepestError(
            f"The data holds {array.dtype}; a descent needs numbers.",
            hint="Encode text and categories first, or train on a file with `steepest fit`.",
        )
    if array.ndim == 0:
        raise SteepestError(
            "Each array of the data needs the rows as its first axis; a single number has none."
        )
    wanted = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.dtype.kind in "iu" and array.size and array.dtype != wanted:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise SteepestError(
                f"The data holds whole numbers outside of {wanted}.", hint="Use astype(float)."
            )
    return np.ascontiguousarray(array, wanted)


def row_count(data: Any) -> int:
    """Return the number of rows, the same in each array."""
    counts = {len(leaf) for leaf in jax.tree.leaves(data)}
    if len(counts) != 1:
        raise SteepestError(f"The arrays of the data differ in their number of rows: {sorted(counts)}.")
    (rows,) = counts
    if not rows:
        raise SteepestError("The data has no rows.")
    return rows


def batch_size_of(batch_size: int | str, rows: int) -> int:
    """Return the rows of a step."""
    if batch_size == "all":
        return rows
    if not _whole(batch_size) or int(batch_size) < 1:
        raise SteepestError(f"A batch size is a whole number from 1, or 'all'; got {batch_size!r}.")
    return min(int(batch_size), rows)


def row_weights(weights: Any, rows: int) -> Array:
    """Return the weight of each row, 1 where none were given."""
    values = np.ones(rows, np.float32) if weights is None else np.asarray(weights, np.float32)
    if values.shape != (rows,):
        raise SteepestError(f"There must be one weight for each of the {rows} rows; got {values.shape}.")
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise SteepestError("Row weights must be finite, 0 or above, and not all 0.")
    return values
