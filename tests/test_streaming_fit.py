"""A fit over files that stream by: rejected rows, late surprises, changing files, the cache, the order."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss

import steepest
from steepest import prediction, preparation, training
from steepest.callbacks import Callback
from steepest.cli import main
from steepest.data import blocks, cache, order, pieces, rows, split, text
from steepest.errors import SteepestError
from steepest.run import Run
from steepest.settings import Settings
from whole_tables import table_of

ROWS = 600


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A folder and a cache of one's own; rows of files are always cached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preparation, "CACHED_FROM", 0)
    return tmp_path


@pytest.fixture
def without_report(monkeypatch):
    monkeypatch.setattr(training, "_write_report", lambda *_: None)


@pytest.fixture
def small(monkeypatch):
    """Stretches, runs, blocks and windows of a few rows."""
    monkeypatch.setattr(rows, "STRETCH_ROWS", 100)
    monkeypatch.setattr(text, "BLOCK_BYTES", 2_000)
    monkeypatch.setattr(text, "LOOK_BYTES", 500)
    monkeypatch.setattr(split, "RUN", 256)
    monkeypatch.setattr(order, "WINDOW", 512)
    for module in (order, pieces):
        monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 64 * 4 * 8)


def flights(count: int = ROWS) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    delay, distance = draws.normal(size=count).round(3), draws.integers(100, 3_000, count)
    late = np.where(delay + distance / 3_000 + draws.normal(size=count) / 2 > 0.5, "yes", "no")
    return pd.DataFrame({"delay": delay, "distance": distance, "late": late})


def write(table: pd.DataFrame, path: str = "x.csv") -> str:
    table.to_csv(path, index=False)
    return path


def fit(data: Any = "x.csv", out: str = "run", **more: Any) -> Run:
    return steepest.fit(data, "late", **{"epochs": 1, "learning_rate": 0.01, "out": out} | more)


def nothing_left(folder: Path) -> bool:
    """Tell whether a failed fit left no run, no unfinished one, and nothing in the cache."""
    left = [path for path in folder.iterdir() if path.name not in ("cache", "x.csv", "x.parquet", "disk")]
    return not left and not folders(folder / "cache")


def folders(place: Path) -> list[Path]:
    """Return the entries, whole or not, of a cache."""
    return [path for path in place.glob("*") if path.is_dir()]


# Rejected rows ------------------------------------------------------------------------------------------


def broken(count: int = ROWS) -> list[int]:
    """Write rows of which three can't be used; return their lines."""
    lines = Path(write(flights(count))).read_text().splitlines()
    lines[40:40] = ["1,2"]
    lines[300:300] = ["1,2,no,4"]
    lines[500:500] = ["much,2,no"]
    Path("x.csv").write_text("\n".join(lines) + "\n")
    return [41, 301, 501]


def test_rejected_rows_are_listed_and_counted(small, monkeypatch):
    wrong, said = broken(), []
    for out, cached in (("memory", 2**26), ("first", 0), ("second", 0)):  # the second from the cache
        monkeypatch.setattr(preparation, "CACHED_FROM", cached)
        run = fit(out=out, say=said.append)
        monkeypatch.setattr(training, "_write_report", lambda *_: None)
        with (run.path / "rejected.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert [int(row["line"]) for row in found] == wrong
        assert {row["file"] for row in found} == {"x.csv"}
        assert [row["reason"].split(" (")[0][:30] for row in found] == [
            "2 cells for the 3 columns of l",
            "4 cells for the 3 columns of l",
            "column 'delay': 'much' is not ",
        ]
        # A reader finds them by their line.
        lines = Path("x.csv").read_text().splitlines()
        assert [lines[int(row["line"]) - 1] for row in found] == ["1,2", "1,2,no,4", "much,2,no"]
        data = run.record["data"]
        assert data["rows"] == ROWS + 3
        assert [each["rows"] for each in data["left_out"] if "rejected.csv" in each["reason"]] == [3]
    assert sum("Left out 3 rows: they can't be used: rejected.csv says why." in each for each in said) == 3
    report = Path("memory/report.html").read_text()
    assert "rejected.csv" in report
    assert "603" in report


def test_too_many_rejected_rows_stop_the_run(folder, small, capsys):
    broken()
    with pytest.raises(SystemExit):
        main(["fit", "x.csv", "--target", "late", "--max-rejected", "0.004", "--out", "run"])
    told = capsys.readouterr().err
    assert "3 of 603 rows" in told
    assert "x.csv, line 41" in told
    assert "--max-rejected" in told
    assert nothing_left(folder)


# Late surprises -----------------------------------------------------------------------------------------


def with_column(values: list[str]) -> None:
    write(flights(len(values)).assign(code=values))


def test_text_after_numbers_makes_categories_and_is_told(small):
    with_column(["1", "2"] * 100 + ["north"] * 400)
    said: list[str] = []
    prepared = prepare(said.append)
    assert "'code' was taken for numbers" in said[0]
    assert "x.csv, line 202: 'north'" in said[0]
    assert "read anew" in said[0]
    (code,) = (column for column in prepared.plan.columns if column.name == "code")
    assert {*code.values} == {"1", "2", "north"}
    assert not prepared.facts["data"]["left_out"]


def test_numbers_after_text_make_numbers_and_are_told(folder, small, monkeypatch):
    monkeypatch.setattr(text, "LOOK_BYTES", 60)
    with_column(["unknown"] * 4 + [f"{number / 8}" for number in range(996)])
    said: list[str] = []
    prepared = prepare(said.append)
    assert "'code' was taken for text" in said[0]
    assert "x.csv, line " in said[0]
    assert {column["name"]: column["kind"] for column in prepared.facts["columns"]}["code"] == "number"
    prepared.rejected(folder)
    found = pd.read_csv("rejected.csv")
    assert found["line"].tolist() == [2, 3, 4, 5]
    assert found["reason"].str.contains("'unknown' is not a number").all()
    assert len(prepared.training.features) + len(prepared.validation.features) == 996


# Files that change --------------------------------------------------------------------------------------


def grown(path: Path) -> None:
    path.write_text(path.read_text() + "1,2,no\n")


def one_column_less(path: Path) -> None:
    pd.read_csv(path).drop(columns="distance").to_csv(path, index=False)


def same_length(path: Path) -> None:
    content = path.read_text()
    path.write_text(content.replace("yes", "xes", 1))
    os.utime(path, ns=(0, 10**18))


CHANGES = {"grows": grown, "is gone": Path.unlink, "loses a column": one_column_less, "other": same_length}


class ChangesAt(Callback):
    """Changes the file at the first rows that are seen of a pass."""

    def __init__(self, doing: str, change: Any) -> None:
        self.doing, self.change = doing, change

    def on_rows_seen(self, doing: str, rows: int, of: int | None) -> None:
        if doing == self.doing and self.change is not None:
            self.change(Path("x.csv"))
            self.change = None


@pytest.mark.parametrize("doing", ["learning", "encoding"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_changes_while_it_is_read_ends_the_run(folder, small, name, doing):
    write(flights())
    changes = ChangesAt(doing, CHANGES[name])
    with pytest.raises(SteepestError, match=r"x\.csv") as raised:
        fit(callbacks=[changes])
    assert changes.change is None, "the file was changed"
    assert "changed" in str(raised.value) or "no file x.csv any more" in str(raised.value)
    assert nothing_left(folder)


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_changes_between_the_passes_ends_the_run(folder, monkeypatch, name):
    write(flights())
    encode = preparation.encode

    def changed(*arguments):
        CHANGES[name](Path("x.csv"))
        encode(*arguments)

    monkeypatch.setattr(preparation, "encode", changed)
    with pytest.raises(SteepestError, match=r"x\.csv"):
        fit()
    assert nothing_left(folder)


# The cache ----------------------------------------------------------------------------------------------


def no_reading(monkeypatch) -> None:
    def read(*_):
        raise AssertionError("the files are read")

    monkeypatch.setattr(preparation, "learn", read)
    monkeypatch.setattr(preparation, "encode", read)


def prepare(say: Callable[[str], None] = print, **more: Any) -> preparation.Prepared:
    return preparation.prepare(Settings(**{"data": ("x.csv",), "target": "late"} | more), say=say)


@pytest.mark.parametrize("other", [{}, {"epochs": 3}, {"model": "mlp"}, {"batch_size": 7}, {"l2": 1.0}])
def test_encoded_rows_are_used_again(monkeypatch, other):
    write(flights())
    before = prepare()
    no_reading(monkeypatch)
    after = prepare(**other)
    np.testing.assert_array_equal(after.training.features[:], before.training.features[:])
    assert after.plan.to_json() == before.plan.to_json()
    assert after.facts == before.facts
    assert len(cache.entries()) == 1


OTHERS: list[dict[str, Any]] = [
    {"drop": ("distance",)},
    {"seed": 1},
    {"validation": 0.3},
    {"weights": "distance"},
    {"class_weight": "balanced"},
    {"split_by": "distance"},
    {"loss": "hinge"},
    {"target": "delay"},
    {"max_rejected": 0.5},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_other_settings_are_encoded_anew(monkeypatch, other):
    write(flights())
    prepare()
    no_reading(monkeypatch)
    with pytest.raises(AssertionError, match="are read"):
        prepare(**other)


def test_a_changed_file_is_encoded_anew():
    write(flights())
    before = prepare()
    write(flights(ROWS + 1))
    after = prepare()
    assert after.facts["data"]["rows"] == before.facts["data"]["rows"] + 1
    assert len(cache.entries()) == 2


@pytest.mark.slow
def test_two_processes_fit_the_same_data_at_once(folder):
    write(flights(20_000))
    code = (
        "import sys; from steepest import preparation, training; preparation.CACHED_FROM = 0;"
        "training._write_report = lambda *_: None;"
        "import steepest; steepest.fit('x.csv', 'late', epochs=1, out=sys.argv[1])"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, out]) for out in ("one", "other")]
    assert [process.wait() for process in both] == [0, 0]
    model, other = ((folder / out / "model.safetensors").read_bytes() for out in ("one", "other"))
    assert model == other
    assert len(cache.entries()) == len(folders(folder / "cache")) == 1


@pytest.fixture
def small_disk(folder, monkeypatch):
    """A disk of one MiB for the cache."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    monkeypatch.setenv("STEEPEST_CACHE", str(disk / "cache"))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("told", [True, False])
def test_a_full_disk_ends_the_run_and_nothing_is_left(folder, small_disk, monkeypatch, told):
    write(flights(150_000))
    if not told:  # another process takes the room meanwhile
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(2**40, 0, 2**40))
    with pytest.raises(SteepestError, match=r"full.*STEEPEST_CACHE"):
        fit()
    assert nothing_left(folder)
    assert not folders(small_disk / "cache")
    monkeypatch.undo()
    assert shutil.disk_usage(small_disk).used < 2**16


# The order, the split, the weights ----------------------------------------------------------------------


def test_sorted_data_is_learned_as_well_as_shuffled(small, without_report):
    table = flights(6_000)
    held_out = []
    for number, rows_ in enumerate((table.sort_values("late"), table)):
        run = fit(rows_, f"run-{number}", epochs=4, batch_size=32, learning_rate=0.01)
        assert run.record["split"]["training_rows"] > 8 * order.WINDOW
        held_out.append(run.epochs["validation_loss"].iloc[-1])
    # Two splits of 1,200 rows: the mean of a loss that deviates by about 0.5 is known to 0.5 / √1200 = 0.014.
    assert abs(held_out[0] - held_out[1]) < 4 * 0.014
    baseline = log_loss(table["late"] == "yes", np.full(len(table), (table["late"] == "yes").mean()))
    assert held_out[0] < 0.8 * baseline


@pytest.mark.parametrize("budget", [2**40, 4], ids=["mapped", "fleeting"])
def test_validation_over_many_windows_is_that_of_all_rows(small, without_report, monkeypatch, budget):
    monkeypatch.setattr(preparation, "memory_budget", lambda _: budget)
    table = flights(2_000)
    write(table[:400])
    write(table[400:], "held.csv")
    run = fit(validation="held.csv")
    assert run.record["split"]["validation_rows"] == 1_600 > 3 * order.WINDOW
    tables = list(prediction.predictions(run, steepest.open_source(table[400:], ["late"])))
    assert len(tables) > 3
    probability = np.concatenate([each["probability of yes"].to_numpy() for each in tables])
    expected = log_loss(table["late"][400:] == "yes", probability)
    assert run.epochs["validation_loss"].iloc[-1] == pytest.approx(expected, rel=1e-5)


def test_many_groups_are_held_out_whole(small):
    table = flights(5_000).assign(plane=np.random.default_rng(1).integers(0, 1_500, 5_000))
    table["copy"] = table["plane"] * 2.0  # tells the group of an encoded row
    write(table)
    prepared = prepare(split_by="plane")
    number = [column.name for column in prepared.plan.columns].index("copy")
    training_, held = ({*part.features[:][:, number]} for part in (prepared.training, prepared.validation))
    assert not training_ & held
    assert len(training_ | held) == table["plane"].nunique()
    share = len(prepared.validation.features) / len(table)
    assert abs(share - 0.2) < 0.01
    assert "plane" not in [column.name for column in prepared.plan.columns]


@pytest.mark.parametrize("source", ["memory", "cache"])
def test_weights_and_class_weights_reach_each_row(small, monkeypatch, source):
    monkeypatch.setattr(preparation, "CACHED_FROM", 0 if source == "cache" else 2**26)
    table = flights(1_000)
    table["copy"] = table["distance"].astype(float)
    write(table)
    prepared = prepare(weights="distance", class_weight="no=1,yes=3", validation=0)
    is_late = table["late"].to_numpy() == "yes"
    np.testing.assert_allclose(
        prepared.training.weights[:], table["distance"] * np.where(is_late, 3, 1), rtol=1e-6
    )
    assert isinstance(prepared.training.target, np.ndarray) == (source == "memory")


# Predictions --------------------------------------------------------------------------------------------


def test_predict_and_evaluate_stream(monkeypatch, without_report, capsys):
    write(flights())
    run = fit()
    main(["predict", "run", "x.csv", "--out", "whole.parquet", "--json"])
    main(["evaluate", "run", "x.csv", "--json"])
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    monkeypatch.setattr(rows, "STRETCH_ROWS", 50)
    monkeypatch.setattr(text, "BLOCK_BYTES", 700)
    assert len(list(steepest.open_source("x.csv").stretches())) > 10
    main(["predict", "run", "x.csv", "--out", "parts.parquet", "--json"])
    main(["evaluate", "run", "x.csv", "--json"])
    parts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert pq.read_table("parts.parquet").num_rows == ROWS
    one, other = (pd.read_parquet(name) for name in ("whole.parquet", "parts.parquet"))
    assert (one["prediction"] == other["prediction"]).all()
    np.testing.assert_allclose(one["probability of yes"], other["probability of yes"], rtol=1e-6)
    assert parts["rows"] == whole["rows"] == ROWS
    for name, value in whole["scores"].items():
        assert parts["scores"][name] == pytest.approx(value, rel=1e-6), name
    assert (one["prediction"] == run_by_hand(run)).all()


def run_by_hand(run: Run) -> np.ndarray:
    """Return a linear model's predictions, computed without the code that streams them."""
    table = pd.read_csv("x.csv")
    features = run.plan.encode(table_of(table).rows)
    layer = run.parameters["layer_1"]
    return np.where(features @ layer["weights"][:, 0] + layer["bias"][0] > 0, "yes", "no")


# The way in from Python ---------------------------------------------------------------------------------


def test_settings_by_name(without_report):
    run = fit([Path(write(flights()))], hidden=[4], model="mlp", batch_size=50)
    written = (run.path / "settings.toml").read_text()
    assert 'data = [\n    "x.csv",\n]' in written
    assert "batch_size = 50" in written
    assert run.record["command"].startswith("steepest fit x.csv --target late --model mlp")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epoch": 3}, r"'epoch', which there is not.*Did you mean 'epochs'"),
        ({"epochs": "three"}, r"epochs = 'three', but it takes a whole number"),
        ({"hidden": ["a"]}, r"hidden = \['a'\], but each of these is a whole number"),
    ],
)
def test_settings_that_there_are_not(folder, wrong, told):
    write(flights())
    with pytest.raises(SteepestError, match=r"steepest\.fit sets " + told):
        steepest.fit("x.csv", "late", out="run", **wrong)
    assert nothing_left(folder)


def test_rows_in_memory_cannot_be_found_again_by_the_command_line(without_report, capsys):
    run = fit(flights())
    assert run.record["command"] == "steepest.fit(data, 'late', learning_rate=0.01, epochs=1, out='run')"

    class Stop(Callback):
        def on_epoch_end(self, figures):
            if figures["epoch"] == 2:
                raise KeyboardInterrupt

    table = flights()
    with pytest.raises(KeyboardInterrupt, match="steepest resume"):
        fit(table, "stopped", epochs=3, checkpoint_every=0.0, callbacks=[Stop()])
    with pytest.raises(SystemExit):
        main(["resume", "stopped"])
    told = capsys.readouterr().err
    assert "The rows of this run were in memory" in told
    assert "Call steepest.fit again" in told
    again, whole = fit(table, "stopped", epochs=3), fit(table, "whole", epochs=3)
    assert (again.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


# Text ---------------------------------------------------------------------------------------------------


def mails(count: int = ROWS) -> pd.DataFrame:
    """Return rows of words and a merchant, of which some tell whether they are late."""
    draws = np.random.default_rng(0)
    weights = draws.normal(size=300)
    words = [draws.integers(0, 300, draws.integers(1, 30)) for _ in range(count)]
    merchants = draws.integers(0, 300, count)
    late = [
        weights[each].sum() + weights[merchant] > 0 for each, merchant in zip(words, merchants, strict=True)
    ]
    text = [" ".join(f"word{word}" for word in each) for each in words]
    return pd.DataFrame({"text": text, "merchant": [f"m{each}" for each in merchants], "late": late})


OF_MAILS = {"epochs": 2, "batch_size": 64, "learning_rate": 0.1, "minimum_count": 1, "optimizer": "adam"}


@pytest.fixture
def fetching(small, monkeypatch):
    """Windows of several batches, so that few shapes are compiled; and a way to have rows fetched."""
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 2**17)

    def fetch(fleeting: bool, cached: bool = True) -> None:
        monkeypatch.setattr(preparation, "memory_budget", lambda _: 4 if fleeting else 2**40)
        monkeypatch.setattr(preparation, "CACHED_FROM", 0 if cached else 2**40)

    return fetch


@pytest.mark.parametrize("model", ["linear", pytest.param("mlp", marks=pytest.mark.slow)])
def test_text_is_fetched_piece_by_piece_as_it_comes_from_memory(fetching, monkeypatch, model):
    mails(2_000).to_parquet("x.parquet", row_group_size=300)
    found = {}
    for name, fleeting, cached in (
        ("memory", False, False),
        ("mapped", False, True),
        ("fleeting", True, True),
    ):
        fetching(fleeting, cached)
        found[name] = fit("x.parquet", name, model=model, hidden=[4], **OF_MAILS)
        monkeypatch.setattr(training, "_write_report", lambda *_: None)
    assert found["memory"].plan.layout.lists == found["memory"].plan.layout.categories == 1
    for name in ("mapped", "fleeting"):
        one, other = (found[each].path / "model.safetensors" for each in ("memory", name))
        assert one.read_bytes() == other.read_bytes(), name
        assert found[name].record["figures"] == found["memory"].record["figures"], name
        assert found[name].record["importances"] == found["memory"].record["importances"], name


def test_all_parts_of_text_are_fetched(fetching):
    mails(2_000).to_parquet("x.parquet")
    fetching(fleeting=True)
    prepared = prepare(data=("x.parquet",), **OF_MAILS)
    for part in (prepared.training, prepared.validation):
        assert all(each.fleeting for each in part.data.values())


@pytest.mark.slow
def test_what_a_sample_judges_of_text_that_is_fetched_is_what_it_judges_in_memory(
    fetching, monkeypatch, without_report
):
    mails(2_000).to_parquet("x.parquet")
    monkeypatch.setattr(prediction, "MOST_JUDGED", 100)
    figures = []
    for name in ("memory", "fleeting"):
        fetching(name == "fleeting", name == "fleeting")
        run = fit("x.parquet", name, model="mlp", hidden=[4], **OF_MAILS)
        figures.append((run.record["figures"], run.record["importances"]))
    assert "drawn from 400" in str(figures[0])
    assert figures[0] == figures[1]


KILLED = """
import os, signal, sys
import steepest
from steepest import preparation
from steepest.data import blocks, order, pieces

order.WINDOW, order.BLOCK, pieces.BLOCK, blocks.WINDOW_BYTES = 512, 64, 64, 2**17
preparation.CACHED_FROM, preparation.memory_budget = 0, lambda _: 4

class Dies(steepest.Callback):
    left = int(sys.argv[1])

    def on_window_end(self, epoch, rows, loss):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

steepest.fit("x.parquet", "late", out=sys.argv[2], callbacks=[Dies()], checkpoint_every=0.0, overwrite=True,
    epochs=2, batch_size=64, learning_rate=0.1, minimum_count=1, optimizer="adam", l2=1e-4)
"""


@pytest.mark.slow
def test_a_killed_fit_of_text_that_is_fetched_goes_on_to_the_byte(without_report):
    mails(2_000).to_parquet("x.parquet")

    def start(windows: int, out: str) -> int:
        return subprocess.run([sys.executable, "-c", KILLED, f"{windows}", out], check=False).returncode

    assert start(0, "whole") == 0
    assert start(6, "killed") == -signal.SIGKILL
    assert list(Path("killed.unfinished").glob("checkpoints/checkpoint-*"))
    assert start(0, "killed") == 0
    one, other = (Path(name, "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other
