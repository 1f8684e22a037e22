"""Every block of code in the pages runs, on small data of the same columns; none is skipped in silence.

Blocks that need Spark run in test_spark_code_blocks.py.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import steepest
from code_blocks import PAGES, Page, blocks_of, known_options, options_named_in, working_in

BUILT_BY_SPHINX = ("{toctree}", "{eval-rst}")
"""The site's own; a site that can't be built fails test_site.py."""

GENERATED = "docs/command-line.md"
"""Its blocks are lines of usage; test_docs.py compares the page with the program."""

EXAMPLES = "docs/examples/"
"""Python there is a piece of a script, which test_examples.py compares and runs; text is what that prints."""

OTHERS_OPTIONS = {
    "examples/fashion.py": ("--images",),
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


def some_mails(rows=200):
    draws = np.random.default_rng(0)
    spam = draws.choice([0, 1], rows)
    text = [
        f"{'win money' if each else 'see you'} {draws.integers(9)}, dear reader of so many mails"
        for each in spam
    ]
    return pd.DataFrame({"spam": spam, "text": text, "length": [len(each) for each in text]})


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
    draws = np.random.default_rng(0)
    demand, temperature = draws.normal(30, 3, (2, 800))
    pd.DataFrame({"demand": demand, "temperature": temperature}).to_csv("demand.csv", index=False)
    some_flights().to_csv("new.csv", index=False)
    steepest.fit(some_flights(), "late", learning_rate=0.01, epochs=1, out="runs/returns")
    return {"frame": some_flights()}


def keras():
    some_mails().to_csv("mails.csv", index=False)
    some_flights().to_csv("flights.csv", index=False)
    return {}


def coming_from():
    for name in ("train.csv", "new.csv"):
        some_mails().to_csv(name, index=False)
    return {}


PREPARED = {
    "docs/coming-from.md": coming_from,
    "README.md": readme,
    "docs/data.md": data,
    "docs/keras.md": keras,
}
"""What a page finds in its folder, and its blocks in their namespace."""

SHORTER = {
    "networks:build": "networks:build --learning-rate 0.01 --epochs 1",
    "wide_and_deep:build": "wide_and_deep:build --learning-rate 0.01 --epochs 1",
    "sales-*.csv --target returned": "sales-*.csv --target returned --learning-rate 0.01 --epochs 2",
    'model="mlp", epochs=5': "epochs=1, learning_rate=0.01",
    "hidden=(64,), early_stopping": "hidden=(64,), learning_rate=0.01, early_stopping",
    "--lags temperature:48": "--lags temperature:48 --learning-rate 0.01 --epochs 1",
    "--kind text=words": "--kind text=words --learning-rate 0.1",
}
"""What stands in a block -> what is run in its place, because finding a rate takes long and tells no more."""


def is_of_a_script(block):
    return block.page.startswith(EXAMPLES) and block.language in ("python", "text")


def needs_spark(block):
    on_spark = block.page == "docs/spark.md" or "spark" in block.text
    return block.language == "python" and on_spark and not is_of_a_script(block)


def is_run_here(block):
    return not (needs_spark(block) or is_of_a_script(block) or block.language in BUILT_BY_SPHINX)


# The listing of many tutorials, as it is, in which Keras would have it otherwise.
@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if page != GENERATED and blocks_of(page)])
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    blocks = [block for block in blocks_of(page) if is_run_here(block)]
    with working_in(tmp_path):
        runner = Page(PREPARED.get(page, dict)(), SHORTER)
        for block in sorted(blocks, key=lambda block: not block.saved_as):
            runner.run(block)
        assert {block.saved_as for block in blocks if block.saved_as} <= runner.used()


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_are_options(page):
    others = set().union(*OTHERS_OPTIONS.values())
    assert options_named_in(page) - known_options() - others == set()


def test_only_the_generated_page_has_blocks_that_nothing_runs():
    texts = {block.page for page in PAGES for block in blocks_of(page) if block.language == "text"}
    assert {page for page in texts if not page.startswith(EXAMPLES)} == {GENERATED}
