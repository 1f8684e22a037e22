"""Every block of code in the pages runs, on small data of the same columns; none is skipped in silence.

Blocks that need Spark run in test_spark_code_blocks.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import steepest
from code_blocks import PAGES, ROOT, Page, blocks_of, known_options, options_named_in, working_in

BUILT_BY_SPHINX = ("{toctree}", "{eval-rst}")
"""The site's own; a site that can't be built fails test_site.py."""

GENERATED = "docs/command-line.md"
"""Its blocks are lines of usage; test_docs.py compares the page with the program."""

OTHER_FIGURES = {"docs/learning-rate.md": "its figures are of 336,776 flights"}
"""Pages whose commands run on less data than they tell of, and why."""

OTHERS_OPTIONS = {
    "spark-submit": ("--archives", "--conf", "--py-files"),
    "Vowpal Wabbit": (
        *("--adaptive", "--daemon", "--decay_learning_rate", "--early_terminate", "--holdout_period"),
        *("--interactions", "--invariant", "--loss_function", "--ngram", "--nn", "--normalized", "--oaa"),
        *("--passes", "--power_t", "--save_resume"),
    ),
}
"""Options of other programs that the text names."""


def some_flights(rows=300):
    draws = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "distance": draws.uniform(100, 3000, rows).round(),
            "carrier": draws.choice(["AA", "UA", "DL"], rows),
            "delay": draws.normal(5, 20, rows).round(),
            "late": draws.choice([0, 1], rows, p=[0.7, 0.3]),
        }
    )


def readme():
    sales = some_flights().assign(customer=np.arange(300) % 40).rename(columns={"late": "returned"})
    for name in ("sales-1.csv", "sales-2.csv", "sales.csv", "new.csv"):
        sales.to_csv(name, index=False)
    sales.to_parquet("later.parquet")
    flights = some_flights()
    x = np.random.default_rng(0).normal(size=(100, 20)).astype("float32")
    return {
        "input_dim": 20, "X_train": x, "y_train": (x[:, 0] > 0).astype("float32"),
        "flights": flights.drop(columns="late"), "late": flights["late"],
    }  # fmt: skip


def data():
    for name in ("runs", "new.csv"):
        some_flights().to_csv(name, index=False) if name.endswith("csv") else Path(name).mkdir()
    steepest.fit(some_flights(), "late", learning_rate=0.01, epochs=1, out="runs/returns")
    return {"frame": some_flights()}


def flights_csv():
    Path("data").mkdir()
    for name in ("data/flights.csv", "flights.csv"):
        some_flights().to_csv(name, index=False)
    return {}


def coming_from():
    draws = np.random.default_rng(0)
    mails = pd.DataFrame({"spam": draws.choice([0, 1], 200)})
    mails["text"] = [f"{'win money' if spam else 'see you'} {draws.integers(9)}" for spam in mails["spam"]]
    for name in ("train.csv", "new.csv"):
        mails.to_csv(name, index=False)
    return {}


PREPARED = {
    "docs/coming-from.md": coming_from,
    "README.md": readme,
    "docs/data.md": data,
    "docs/keras.md": flights_csv,
    "docs/learning-rate.md": flights_csv,
}
"""What a page finds in its folder, and its blocks in their namespace."""


SHORTER = {"flights.csv --target late": "flights.csv --target late --epochs 2"}
"""What stands in a block -> what is run in its place, because it takes long and tells no more."""


def is_run_here(block):
    on_spark = block.page == "docs/spark.md" or "spark" in block.text
    return not (block.language == "python" and on_spark) and block.language not in BUILT_BY_SPHINX


# The listing of many tutorials, as it is, in which Keras would have it otherwise.
@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if page != GENERATED and blocks_of(page)])
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    blocks = [block for block in blocks_of(page) if is_run_here(block)]
    with working_in(tmp_path):
        runner = Page(PREPARED.get(page, dict)(), figures=page not in OTHER_FIGURES, swaps=SHORTER)
        for block in sorted(blocks, key=lambda block: not block.saved_as):
            runner.run(block)


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_are_options(page):
    others = set().union(*OTHERS_OPTIONS.values())
    assert options_named_in(page) - known_options() - others == set()


def test_only_the_generated_page_has_blocks_that_nothing_runs():
    assert {block.page for page in PAGES for block in blocks_of(page) if block.language == "text"} == {
        GENERATED
    }
    assert (ROOT / GENERATED).exists()
