"""A run's folder: what a fit leaves behind, complete or absent (see `steepest.unfinished`).

====================  ==============================================================
``settings.toml``     everything needed to run it again
``record.json``       what was read, decided, reached, and how long it took
``history.parquet``   every step: epoch, loss, gradient_norm, learning_rate
``history.csv``       every epoch: rows, loss, validation figures, rate, seconds
``model.json``        the model's shape and the task
``model.safetensors`` the parameters
``columns.json``      the column plan
``evidence.json``     what was measured of the descent when it had ended
``findings.json``     what follows from it: a list of findings, each with one thing to try
``report.html``       the same for a person
``rejected.csv``      rows that can't be used, if there were any: file, line, reason
``checkpoints``       where the descent ended, for more epochs
====================  ==============================================================
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steepest.errors import SteepestError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from steepest.data.columns import Plan
    from steepest.descent.models import Model
    from steepest.tasks import Task

Made = TypeVar("Made")

FORMAT = 1
"""Version of the folder's format."""


@dataclass(frozen=True)
class Shape:
    """A model's shape: see `steepest.descent.models.multilayer`, and for sparse features `wide_and_deep`."""

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: str
    dropout: float
    features: int = 0
    columns: int = 0
    embedding: int = 0

    def build(self, output_bias: npt.ArrayLike = 0.0) -> Model:
        """Return the model of this shape."""
        from steepest.descent.models import multilayer, wide_and_deep

        settings: dict[str, Any] = {
            "activation": self.activation,
            "dropout": self.dropout,
            "output_bias": output_bias,
        }
        if not self.features:
            return multilayer(self.inputs, self.hidden, self.outputs, **settings)
        sparse = self.features, self.columns
        return wide_and_deep(
            self.inputs, *sparse, self.hidden, self.outputs, embedding=self.embedding, **settings
        )


@dataclass(frozen=True)
class Run:
    """A run that is complete, opened for reading; each part is read when it is asked for.

    Parameters
    ----------
    path
        Its folder.
    url
        Where it is kept, if it is on HDFS; ``path`` is a copy then that goes away with this object.
    """

    path: Path
    url: str | None = None

    @property
    def name(self) -> str:
        """What a person calls it: where it is kept."""
        return self.url or str(self.path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What was read, decided and reached."""
        return self._part("record.json", dict)

    @cached_property
    def findings(self) -> list[dict[str, str]]:
        """What went well and what did not: see `steepest.diagnose`."""
        return self._part("findings.json", list)

    @cached_property
    def form(self) -> dict[str, Any]:
        """What ``model.json`` says: how to build the model without its parameters, and the task."""
        return self._part("model.json", dict)

    @cached_property
    def task(self) -> Task:
        """What was learned."""
        from steepest.tasks import task_from_json

        return self._part("model.json", lambda stored: task_from_json(stored["task"]))

    @cached_property
    def shape(self) -> Shape | None:
        """The shape of a linear or multilayer model; ``None`` for a Keras model."""
        if "keras" in self.form:
            return None
        return self._part("model.json", lambda stored: shape_from_json(stored["shape"]))

    @cached_property
    def plan(self) -> Plan:
        """How columns become features."""
        from steepest.data.columns import plan_from_json

        return self._part("columns.json", plan_from_json)

    @cached_property
    def model(self) -> Model:
        """The model."""
        return self._part("model.json", lambda stored: _model_from_json(stored, self.task, self.plan))

    @cached_property
    def parameters(self) -> dict[str, dict[str, npt.NDArray[np.floating[Any]]]]:
        """The model's parameters."""
        import jax
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            flat = load_file(self.path / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise self._broken("model.safetensors", error) from None
        layers: dict[str, Any] = {}
        for name, values in flat.items():
            layer, _, part = name.partition(".")
            if part:
                layers.setdefault(layer, {})[part] = values
            else:
                layers[layer] = values
        wanted = jax.eval_shape(self.model.init, jax.random.key(0))
        if jax.tree.map(_shape_of, layers) != jax.tree.map(_shape_of, wanted):
            raise self._broken("model.safetensors", "it is not of the shape that model.json tells")
        return layers

    @cached_property
    def steps(self) -> pd.DataFrame:
        """Every step's figures."""
        import pandas as pd

        return pd.read_parquet(self.path / "history.parquet")

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """Every epoch's figures."""
        import pandas as pd

        return pd.read_csv(self.path / "history.csv", float_precision="round_trip")

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """What the report shows, as tables by name; those that the run has.

        ``steps`` and ``epochs``; ``scores``, the baseline's beside them; ``findings``; ``columns``,
        ``dropped`` columns and rows ``left_out``; ``importances`` and ``words``; ``rates`` that were tried;
        ``setbacks``, ``workers``, ``seconds``; and of held-out rows, where there are any, else of training
        rows, ``roc``, ``precision_recall``, ``calibration`` and ``confusion``, or ``residuals`` and
        ``predicted_against_true``.
        """
        from steepest.run_tables import tables_of

        return tables_of(self)

    def _part(self, name: str, make: Callable[[Any], Made]) -> Made:
        """Return what is made of a JSON file; whatever goes wrong, the file is to blame."""
        try:
            return make(json.loads((self.path / name).read_text("utf-8")))
        except OSError as error:
            raise self._broken(name, error.strerror) from None
        except (ValueError, TypeError, LookupError, AttributeError, SteepestError) as error:
            raise self._broken(name, error) from None

    def _broken(self, name: str, why: object) -> SteepestError:
        return SteepestError(
            f"The run {self.name} is damaged: {name} can't be read ({why}).",
            hint="Fit it again from its settings.toml.",
        )


def _model_from_json(stored: Mapping[str, Any], task: Task, plan: Plan) -> Model:
    if "keras" in stored:
        from steepest.keras.stored import model_from_json

        return model_from_json(stored["keras"], task, plan)
    return shape_from_json(stored["shape"]).build()


def shape_from_json(stored: Mapping[str, Any]) -> Shape:
    """Return a shape from what ``dataclasses.asdict`` made of it."""
    return Shape(**{**stored, "hidden": tuple(stored["hidden"])})


def _shape_of(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape)


def open_run(path: str | Path) -> Run:
    """Open a run's folder, or a copy of one that is on HDFS.

    Raises
    ------
    SteepestError
        If there is none, or it is of a format that this version does not know.
    """
    from steepest.data.files import is_url

    run = _fetched(str(path)) if is_url(str(path)) else Run(Path(path))
    folder = run.path
    if not folder.is_dir():
        raise SteepestError(f"There is no run {folder}.", hint=_known_runs(folder))
    if not is_run(folder):
        raise SteepestError(
            f"The folder {run.name} is no run: it has no record.json.", hint=_known_runs(folder)
        )
    if run.record.get("format") != FORMAT:
        raise SteepestError(
            f"The run {run.name} has the format {run.record.get('format')}; this version reads {FORMAT}.",
            hint="Use the version that wrote it, or run it again from its settings.toml.",
        )
    return run


def _fetched(url: str) -> Run:
    from steepest.storage import storage_of

    storage, name = storage_of(url)
    folder = Path(tempfile.mkdtemp(prefix="steepest-"))
    run = copy_of(url, folder)
    storage.get(name, run.path)
    return run


def copy_of(url: str, folder: Path) -> Run:
    """Return a run on HDFS whose copy is, or will be, ``run`` in this folder, which goes away with it."""
    run = Run(folder / "run", url)
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def open_model(of: Run | str | os.PathLike[str]) -> Run:
    """Open the folder of a run that has a model to go on with; one that is open is taken as it is.

    Raises
    ------
    SteepestError
        As `open_run`, or if its descent diverged.
    """
    if isinstance(of, Run):
        return of
    run = open_run(os.fspath(of))
    failure = run.record["descent"].get("failure")
    if failure:
        raise SteepestError(
            f"The descent of {run.name} diverged at step {failure['step']:,}: it has no model.",
            hint=f"{run.name}/report.html shows why; fit again at a lower --learning-rate.",
        )
    return run


def is_run(folder: Path) -> bool:
    """Tell whether the folder is a run."""
    return (folder / "record.json").is_file()


def _known_runs(near: Path) -> str:
    places = [near.parent, Path("runs")]
    known = sorted(
        {str(each) for place in places if place.is_dir() for each in place.iterdir() if is_run(each)}
    )
    return f"Known runs: {', '.join(known[:8])}." if known else "steepest fit makes one."


def write_model(
    folder: Path, form: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], task: Task, plan: Plan
) -> None:
    """Write the model, its task and its column plan; see `steepest.trained.Trained`."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file(
        {name: np.ascontiguousarray(values) for name, values in arrays.items()}, folder / "model.safetensors"
    )
    write_json(folder / "model.json", {**form, "task": asdict(task)})
    write_json(folder / "columns.json", plan.to_json())


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON that a person can read, too."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def write_history(folder: Path, steps: pd.DataFrame, epochs: pd.DataFrame) -> None:
    """Write every step's and every epoch's figures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (folder / "history.parquet").open("wb") as file:  # by its name, "a:b/c" would be a URI to Arrow
        pq.write_table(pa.Table.from_pandas(steps, preserve_index=False), file)
    epochs.to_csv(folder / "history.csv", index=False)
