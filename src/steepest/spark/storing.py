"""Models on any file system that Spark knows: Spark ML's metadata and, beside it, the run's folder."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.ml.param import Params
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter
from pyspark.ml.wrapper import JavaWrapper
from pyspark.sql import SparkSession

from steepest.errors import SteepestError
from steepest.run import Run, is_run, open_run

RUN = "run"


@contextmanager
def passing_folder() -> Iterator[Path]:
    """Give a folder for a run that nobody asked to keep.

    It is removed on errors, but for a run in it, which shows why a descent failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="steepest-"))
    try:
        yield folder
    except BaseException:
        if not is_run(folder / RUN):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def goes_with(run: Run, folder: Path) -> Run:
    """Let a folder go when the run that lies in it is no longer used."""
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def save(spark: SparkSession, model: Params, run: Path, path: str, facts: Mapping[str, Any]) -> None:
    """Write a model; where something stands already, Spark's own refusal is raised."""
    overwrite = JavaWrapper._new_java_obj("org.apache.spark.ml.util.FileSystemOverwrite")
    overwrite.handleOverwrite(path, False, spark._jsparkSession)
    DefaultParamsWriter.saveMetadata(model, path, spark, extraMetadata=dict(facts))
    files, place = _hadoop(spark, path)
    local = _path(spark, run.absolute().as_uri())
    files.copyFromLocalFile(False, False, local, place)


def load(spark: SparkSession, kind: type, path: str) -> tuple[dict[str, Any], Run]:
    """Return a model's metadata, and its run, copied to a folder of this machine."""
    metadata = DefaultParamsReader.loadMetadata(path, spark)
    wanted = f"{kind.__module__}.{kind.__name__}"
    if metadata["class"] != wanted:
        raise SteepestError(
            f"{path} holds a {metadata['class']}, not a {wanted}.",
            hint=f"Load it by {metadata['class'].rpartition('.')[2]}.load.",
        )
    files, place = _hadoop(spark, path)
    if not files.exists(place):
        raise SteepestError(
            f"The model {path} is damaged: its folder {RUN!r} is missing.", hint="Save it again."
        )
    with passing_folder() as folder:
        files.copyToLocalFile(False, place, _path(spark, (folder / RUN).as_uri()), True)
        return metadata, goes_with(open_run(folder / RUN), folder)


def restore(model: Any, metadata: Mapping[str, Any]) -> None:
    """Give a model the name and the parameters that it was saved with."""
    model._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(model, dict(metadata))


def _hadoop(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return the file system that a path is of, and the place of the run in it."""
    place = _path(spark, f"{path.rstrip('/')}/{RUN}")
    return place.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), place


def _path(spark: SparkSession, path: str) -> Any:
    jvm: Any = spark._jvm
    return jvm.org.apache.hadoop.fs.Path(path)
