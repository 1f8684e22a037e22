"""What `steepest.minimize` was given, checked and turned into what the descent takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.data.gather import Converted, Gathered, Mapped, Sparse, is_gathered, mapped
from steepest.data.pairs import Pairs, Strips, pairs_of
from steepest.data.shared import Fetched, Shared
from steepest.descent.optimizers import Optimizer
from steepest.descent.stopping import Patience
from steepest.descent.tables import Split
from steepest.descent.validation import Validation
from steepest.errors import SteepestError, nearest

Array = np.ndarray[Any, Any]
Parameters = Any


@dataclass(frozen=True)
class Objective:
    """The caller's function as ``(parameters, batch, key)``; equal for equal functions."""

    function: Callable[..., jax.Array]
    takes_data: bool
    takes_key: bool

    def __call__(self, parameters: Parameters, batch: Any, key: jax.Array | None) -> jax.Array:
        """Return the loss, a number or one for each row."""
        data = (batch,) if self.takes_data else ()
        return self.function(parameters, *data, **({"key": key} if self.takes_key else {}))


def as_objective(function: Callable[..., jax.Array], takes_data: bool) -> Objective:
    """Return the caller's function with what it takes."""
    return Objective(function, takes_data, "key" in inspect.signature(function).parameters)


def check_single_number(objective: Objective, start: Parameters) -> None:
    """Refuse an objective without data that returns anything but a single number."""
    shape = getattr(jax.eval_shape(objective, start, None, jax.random.key(0)), "shape", None)
    if shape != ():
        raise SteepestError(f"Without data the objective must return a single number; its shape is {shape}.")


def one_loss_per_row(objective: Objective, start: Parameters, data: Any, size: int) -> bool:
    """Tell whether the objective returns a loss for each row (or one number); anything else is an error."""
    returned = jax.eval_shape(objective, start, shape_of_batch(data, size), jax.random.key(0))
    shape = getattr(returned, "shape", None)
    if shape not in ((), (size,)):
        named = f"a {type(returned).__name__}" if shape is None else f"the shape {shape}"
        raise SteepestError(
            f"For a batch of {size} rows the objective returned {named}.",
            hint=f"It must return a single number or one loss for each row, ({size},).",
        )
    return bool(shape == (size,))


def shape_of_batch(data: Any, size: int) -> Any:
    """Return what a batch of so many rows looks like, without its values."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Pairs):
            pairs = (size, leaf.places.shape[1])
            return Strips(
                jax.ShapeDtypeStruct(pairs, np.uint32),
                jax.ShapeDtypeStruct(pairs, np.float32),
                jax.ShapeDtypeStruct((size,), np.int32),
            )
        rows = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        dtype = jax.dtypes.canonicalize_dtype(rows.dtype)
        shaped: jax.ShapeDtypeStruct = jax.eval_shape(partial(jnp.zeros, (size, *rows.shape[1:]), dtype))
        return shaped

    return jax.tree.map(one, data)


def told(rule: Optimizer, **given: Any) -> dict[str, Any]:
    """Return what a descent was asked for, as plain JSON; what is no number or name is left out.

    Examples
    --------
    >>> from steepest.descent.optimizers import LBFGS
    >>> told(LBFGS(), epochs=3, patience=None)["optimizer"], "patience" in told(LBFGS(), patience=None)
    ('lbfgs', False)
    """
    rates = {f"schedule.{name}": value for name, value in rule.schedule.settings.items()}
    everything = {
        "optimizer": rule.name,
        **{f"optimizer.{name}": value for name, value in rule.settings.items()},
        "clip_norm": rule.clip_norm,
        "learning_rate": rates.pop("schedule.learning_rate", None),
        "schedule": rule.schedule.name,
        **rates,
        **given,
    }
    return {name: value for name, value in everything.items() if isinstance(value, str | int | float)}


def refuse_without(missing: str, **given: Any) -> None:
    """Refuse arguments that are of no use without another."""
    for name, value in given.items():
        if value is not None:
            raise SteepestError(f"{name} is of no use without {missing}.")


def refuse_with_lookups(**asked: bool) -> None:
    """Refuse what a descent in place, which keeps no state but the last, does not do."""
    for name, is_asked in asked.items():
        if is_asked:
            raise SteepestError(
                f"There is no {name.replace('_', '-')} where features are sparse: a step then moves the rows "
                "of a table that it looks up, and keeps no other state.",
                hint="Leave it out; or drop the sparse columns, or the lookups.",
            )


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


def check_numbers(*, epochs: int, seed: int, tolerance: float, checkpoint_every: float) -> None:
    """Refuse numbers that no descent can have."""
    if not _whole(epochs) or epochs < 1:
        raise SteepestError(f"A descent needs at least one epoch; epochs={epochs}.")
    if not _whole(seed) or seed < 0:
        raise SteepestError(f"A seed is a whole number from 0; seed={seed}.")
    if not tolerance >= 0:
        raise SteepestError(f"The tolerance must be 0 or above; tolerance={tolerance}.")
    if not checkpoint_every >= 0:
        raise SteepestError(f"Checkpoints are 0 or more seconds apart; checkpoint_every={checkpoint_every}.")


def check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices.

    Raises
    ------
    SteepestError
        With the nearest of them.
    """
    if choice not in choices:
        raise SteepestError(f"There is no {name} {choice!r}.", hint=nearest(choice, choices))


def patience_of(epochs: int | None, monitor: str, validation: Validation | None) -> Patience | None:
    """Return the rule of early stopping, if there is one."""
    if epochs is None:
        return None
    if not _whole(epochs) or epochs < 1:
        raise SteepestError(f"Patience is a whole number of epochs from 1; patience={epochs}.")
    known = ("loss", *(validation.names if validation else ()))
    if monitor not in known:
        raise SteepestError(f"No epoch has a figure {monitor!r} to monitor.", hint=nearest(monitor, known))
    return Patience(int(epochs), monitor)


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
    given = jax.tree.map(lambda each, leaf: np.asarray(each, leaf.dtype), strength, start)
    values = np.concatenate([np.ravel(each) for each in jax.tree.leaves(given)])
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise SteepestError(f"{name} must be 0 or above.")
    if not values.any():
        return None
    return jax.tree.map(lambda each, leaf: np.broadcast_to(each, leaf.shape), given, start)


def uniform(strength: Split) -> Split:
    """Return a penalty's strengths with one number for each table."""
    for table in strength.tables:
        if jnp.min(table) != jnp.max(table):
            raise SteepestError("All rows of a table that is looked up have the same penalty.")
    return Split(strength.dense, tuple(jnp.max(table) for table in strength.tables))


def _alike(first: Any, second: Any) -> bool:
    return str(jax.tree.structure(first)) == str(jax.tree.structure(second))


def as_data(leaf: Any) -> Array | Gathered | Pairs:
    """Return data as `as_rows` does, or as the pairs that they are."""
    return leaf if isinstance(leaf, Pairs) else as_rows(leaf)


def as_rows(leaf: Any) -> Array | Gathered:
    """Return data as rows of the type that the device will use.

    What is in a mapped file stays there, and a sparse matrix of SciPy stays sparse: such rows are converted
    as they are gathered.
    """
    if is_gathered(leaf):
        return leaf
    sparse = hasattr(leaf, "tocsr")
    array = leaf.tocsr() if sparse else np.asarray(leaf)
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
    if sparse:
        return Sparse(array, wanted)
    if mapped(array):
        return array if array.dtype == wanted else Converted(array, wanted)
    return np.ascontiguousarray(array, wanted)


class Lookup(NamedTuple):
    """A table of parameters, and where the data says which of its rows a batch looks up.

    Attributes
    ----------
    table
        The name of the parameter.
    width
        Its rows.
    names
        The names of the data.
    """

    table: str
    width: int
    names: tuple[str, ...]


def lookups_of(lookups: Mapping[str, str] | None, start: Any, data: Any) -> tuple[Lookup, ...]:
    """Return the tables that are looked up, in the order of their names."""
    if not lookups:
        return ()
    if not isinstance(start, dict) or not isinstance(data, dict):
        raise SteepestError("Lookups name data and parameters, so both must be dictionaries.")
    for name, table in lookups.items():
        for each, known, what in ((name, data, "data"), (table, start, "parameters")):
            if each not in known:
                raise SteepestError(f"The {what} have no {each!r} to look up.", hint=nearest(each, known))
        if np.ndim(start[table]) < 1:
            raise SteepestError(f"The parameter {table!r} is no table: it has no rows to look up.")
        if not _has_places(data[name]):
            raise SteepestError(
                f"The data {name!r} have no places to look up in {table!r}.",
                hint="Give whole numbers, or a sparse matrix of SciPy.",
            )
    tables = sorted(set(lookups.values()))
    if len(tables) == len(start):
        raise SteepestError("Lookups need a parameter besides the tables.", hint="Add a bias, for example.")
    return tuple(
        Lookup(table, len(start[table]), tuple(sorted(name for name in lookups if lookups[name] == table)))
        for table in tables
    )


def _has_places(leaf: Any) -> bool:
    if isinstance(leaf, Pairs) or hasattr(leaf, "tocsr"):
        return True
    return (leaf if is_gathered(leaf) else np.asarray(leaf)).dtype.kind in "iu"


def with_pairs(data: Any, lookups: Mapping[str, str] | None) -> Any:
    """Return the data with the sparse matrices whose places are looked up as pairs."""
    if data is None:
        return None
    sparse = [name for name in lookups or () if hasattr(data.get(name), "tocsr")]
    return {**data, **{name: pairs_of(data[name]) for name in sparse}} if sparse else data


def row_count(data: Any) -> int:
    """Return the number of rows, the same in each array."""
    counts = {leaf.shape[0] if hasattr(leaf, "shape") else len(leaf) for leaf in jax.tree.leaves(data)}
    if len(counts) != 1:
        raise SteepestError(f"The arrays of the data differ in their number of rows: {sorted(counts)}.")
    (rows,) = counts
    if not rows:
        raise SteepestError("The data has no rows.")
    return int(rows)


def batch_size_of(batch_size: int | str, rows: int) -> int:
    """Return the rows of a step."""
    if batch_size == "all":
        return rows
    if not _whole(batch_size) or int(batch_size) < 1:
        raise SteepestError(f"A batch size is a whole number from 1, or 'all'; got {batch_size!r}.")
    return min(int(batch_size), rows)


def row_weights(weights: Any, rows: int) -> Array | Mapped | Shared | Fetched | int:
    """Return the weight of each row, or the number of rows where none were given."""
    if weights is None:
        return rows
    values = weights if isinstance(weights, (Mapped, Shared, Fetched)) else np.asarray(weights, np.float32)
    if values.shape != (rows,):
        raise SteepestError(f"There must be one weight for each of the {rows} rows; got {values.shape}.")
    held = _held(values)
    least, most = float(np.min(held, initial=np.inf)), float(np.max(held, initial=0.0))
    if not (least >= 0 and most < np.inf and (most > 0 or isinstance(values, (Shared, Fetched)))):
        raise SteepestError("Row weights must be finite, 0 or above, and not all 0.")
    return values


def some_weigh_nothing(weights: Array | Mapped | Shared | Fetched | int) -> bool:
    """Tell whether a row has, or may have, the weight 0."""
    if isinstance(weights, (int, Fetched)):
        return not isinstance(weights, int)
    none = not np.all(_held(weights))
    return any(map(any, weights.group.exchange(bytes([none])))) if isinstance(weights, Shared) else none


def _held(weights: Any) -> Any:
    """Return the weights that this process holds, as an array."""
    if isinstance(weights, Fetched):
        weights = weights.rows
    if isinstance(weights, Shared):
        weights = weights.held
    return weights.array if isinstance(weights, Mapped) else weights
