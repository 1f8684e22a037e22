"""An objective of your own: a matrix as the product of two narrow ones, against closed forms.

    python examples/matrix_factorisation.py --pictures docs/examples

The matrix is scikit-learn's digits: 1,797 pictures of 64 pixels. Where all of it is known, the best product
is the truncated singular value decomposition. Where a part is missing, descent is held against alternating
least squares. `docs/examples/matrix_factorisation.md` tells what to learn from it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import typer
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import steepest
from drawing import save

RANK = 8
PENALTY = 0.2
"""On each squared factor that an entry looks up, in the part where entries are missing."""

Parameters = dict[str, jax.Array]


def matrix(rows: int) -> np.ndarray:
    """Return pictures as rows, pixels as columns, less each pixel's mean."""
    digits = load_digits().data[:rows].astype(np.float32)
    return digits - digits.mean(axis=0)


def start(shape: tuple[int, int]) -> Parameters:
    """Return small random factors; at zero the gradient would be zero, too."""
    draws = np.random.Generator(np.random.Philox(0))
    rows, columns = (0.1 * draws.standard_normal((size, RANK), np.float32) for size in shape)
    return {"rows": jnp.asarray(rows), "columns": jnp.asarray(columns)}


def all_known(known: np.ndarray) -> steepest.Result:
    """Minimise the squared error of the whole matrix by L-BFGS."""

    def error(factors: Parameters) -> jax.Array:
        return ((factors["rows"] @ factors["columns"].T - known) ** 2).mean()

    return steepest.minimize(error, start(known.shape), optimizer="lbfgs", epochs=500, tolerance=1e-9)


def best_of_rank(known: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the least mean squared error of this rank, and the product that has it.

    Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1 (1936).
    """
    left, singular, right = np.linalg.svd(known.astype(np.float64), full_matrices=False)
    product = (left[:, :RANK] * singular[:RANK]) @ right[:RANK]
    return float((singular[RANK:] ** 2).sum() / known.size), product


def entries(values: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return the chosen entries as a table: row, column, value."""
    row, column = np.nonzero(chosen)
    return {"row": row.astype(np.int32), "column": column.astype(np.int32), "value": values[chosen]}


def penalised_error(factors: Parameters, batch: Parameters) -> jax.Array:
    """Return for each entry ``(u · v - value)² + λ (|u|² + |v|²)``."""
    u, v = factors["rows"][batch["row"]], factors["columns"][batch["column"]]
    return ((u * v).sum(axis=1) - batch["value"]) ** 2 + PENALTY * (u**2 + v**2).sum(axis=1)


def partly_known(table: dict[str, np.ndarray], shape: tuple[int, int], epochs: int) -> steepest.Result:
    """Minimise the penalised error of the entries that are known, a batch of them at a time."""
    steps = epochs * -(-len(table["value"]) // 256)
    return steepest.minimize(
        penalised_error,
        start(shape),
        table,
        optimizer=steepest.Adam(steepest.schedules.cosine(0.03, steps=steps)),
        batch_size=256,
        epochs=epochs,
    )


def alternating_least_squares(values: np.ndarray, known: np.ndarray, sweeps: int) -> np.ndarray:
    """Minimise the same by solving for all rows, then for all columns, in closed form; return the product."""
    factors = start(values.shape)
    rows, columns = np.asarray(factors["rows"], np.float64), np.asarray(factors["columns"], np.float64)
    for _ in range(sweeps):
        rows = solved(columns, values, known)
        columns = solved(rows, values.T, known.T)
    return rows @ columns.T


def solved(others: np.ndarray, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return for each row the ridge regression of its known values on the other side's factors."""
    found = np.zeros((len(values), RANK))
    for row, (theirs, here) in enumerate(zip(values, known, strict=True)):
        chosen = others[here]
        ridge = chosen.T @ chosen + PENALTY * here.sum() * np.eye(RANK)
        found[row] = np.linalg.solve(ridge, chosen.T @ theirs[here]) if here.any() else 0
    return found


def root_mean_squared(error: np.ndarray) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


@steepest.plot.style()
def pictures_of(values: np.ndarray, known: np.ndarray, product: np.ndarray) -> Figure:
    """Draw six pictures: whole, with what is missing, and completed."""
    figure = Figure(figsize=(6.3, 3.3))
    mean = load_digits().data.mean(axis=0)
    filled = np.where(known, values, product)
    shown = (values + mean, np.where(known, values + mean, np.nan), filled + mean)
    all_axes = figure.subplots(3, 6)
    for line, (words, table) in enumerate(zip(("true", "known", "completed"), shown, strict=True)):
        for place, axes in enumerate(all_axes[line]):
            axes.imshow(table[place * 7].reshape(8, 8), cmap="Greys", vmin=0, vmax=16)
            axes.set_facecolor("#f0a46a")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(True)
        all_axes[line, 0].set_ylabel(words)
    return figure


def main(pictures: Path | None = None, rows: int = 1797, epochs: int = 60) -> None:
    """Factorise the whole matrix, then one that is known in part; of fewer rows for a short try."""
    values = matrix(rows)
    result = all_known(values)
    least, best = best_of_rank(values)
    product = result.parameters["rows"] @ result.parameters["columns"].T
    print(f"All entries known, rank {RANK}: mean squared error")
    print(f"  descent (L-BFGS, {result.steps} steps)     {result.history['loss'].iloc[-1]:.5f}")
    print(f"  singular value decomposition   {least:.5f}")
    print(f"  largest difference of the two products: {np.abs(product - best).max():.4f} of 16 shades")

    known = np.random.Generator(np.random.Philox(1)).random(values.shape) < 0.7
    fitted = partly_known(entries(values, known), values.shape, epochs)
    completed = np.asarray(fitted.parameters["rows"] @ fitted.parameters["columns"].T)
    alternating = alternating_least_squares(values, known, sweeps=20)
    print("\nThree tenths of the entries missing: root mean squared error of these, in shades of 16")
    print(f"  each pixel's mean              {root_mean_squared(values[~known]):.3f}")
    print(f"  descent (Adam, batches of 256) {root_mean_squared((completed - values)[~known]):.3f}")
    print(f"  alternating least squares      {root_mean_squared((alternating - values)[~known]):.3f}")
    if pictures is not None:
        save(pictures_of(values, known, completed), pictures, "matrix_factorisation-completed")
        save(steepest.plot.loss_by_step(fitted), pictures, "matrix_factorisation-loss")


if __name__ == "__main__":
    sys.exit(typer.run(main))
