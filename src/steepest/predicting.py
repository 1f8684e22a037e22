"""`steepest.predict`: what a run's model predicts for rows, as a table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from steepest.data.rows import settled
from steepest.prediction import open_rows, predictions
from steepest.run import Run, open_model

if TYPE_CHECKING:
    import pandas as pd


def predict(run: Run | str | os.PathLike[str], data: Any) -> pd.DataFrame:
    """Predict rows with a run's model; ``steepest predict`` writes them to a file, at any size.

    Parameters
    ----------
    run
        A run or its folder.
    data
        Whatever `steepest.open_source` takes, with the columns of the training rows.

    Returns
    -------
    pandas.DataFrame
        A row for each row of ``data``, in the same order: ``prediction``, and for classes ``probability of
        LABEL`` (of two, that of the last).

    Raises
    ------
    SteepestError
        If there is no such run, or the data can't be used.

    Examples
    --------
    >>> import tempfile, steepest
    >>> miles = [float(each) for each in range(100, 3100, 10)]
    >>> flights = {"distance": miles, "minutes": [20 + each / 8 for each in miles]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = steepest.fit(flights, "minutes", epochs=200, learning_rate=0.1, out=f"{folder}/run")
    ...     predicted = steepest.predict(run, {"distance": [240.0, 2400.0]})
    >>> predicted["prediction"].round().tolist()
    [50.0, 320.0]
    """
    opened = open_model(run)
    tables = settled(open_rows(opened.plan, data), lambda rows: list(predictions(opened, rows)))
    predicted: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return predicted
