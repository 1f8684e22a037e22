"""The pages' blocks of code that need Spark, on small frames of the same columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from code_blocks import PAGES, Page, blocks_of, working_in
from spark_sessions import spark
from steepest.keras import keras
from steepest.spark import DescentClassificationModel
from test_code_blocks import needs_spark, some_flights

SWAPS = {
    '"late", workers=8': '"late", workers=1, learning_rate=0.01',
    "epochs=10, numWorkers=8": "epochs=1, numWorkers=1, learningRate=0.01",
    "workers=8": "workers=1",
    "numWorkers=8": "numWorkers=1",
    "epochs=10,": "epochs=1,",
    "hdfs://namenode:9000/": "",
    "hdfs:///": "file:{folder}/",
}
"""What stands in a block -> what is run in its place: no cluster of eight, no HDFS, no search for rates."""


@pytest.fixture(scope="module")
def session():
    with spark("local[2]") as found:
        yield found


def frame_of_numbers(session):
    numbers = np.random.default_rng(0).normal(size=(200, 5))
    return session.createDataFrame(pd.DataFrame(numbers, columns=[*"abcd", "delay"]))


def blocks_on_spark(page):
    return [block for block in blocks_of(page) if needs_spark(block)]


def test_these_are_all():
    assert {page for page in PAGES if blocks_on_spark(page)} == {
        "README.md",
        "docs/spark.md",
        "docs/coming-from.md",
    }


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_on_spark(page)])
def test_every_block_runs(page, session, tmp_path):
    flights = session.createDataFrame(some_flights())
    names = {
        "spark": session,
        "flights": flights,
        "frame": flights,
        "keras": keras,
        "DescentClassificationModel": DescentClassificationModel,
    }
    with working_in(tmp_path):
        runner = Page(names, {name: swap.format(folder=tmp_path) for name, swap in SWAPS.items()})
        for block in blocks_on_spark(page):
            if "keras.layers" in block.text:
                names["frame"] = frame_of_numbers(session)
            runner.run(block)
