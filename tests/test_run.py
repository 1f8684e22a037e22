"""A run's folder: what is in it, that it is complete or absent, and what is said when it is damaged."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import steepest
from steepest import networks, recording, training
from steepest.errors import SteepestError
from steepest.run import open_run, write_history
from steepest.settings import Settings, to_toml
from steepest.unfinished import check_out, free_name

FILES = {
    "settings.toml",
    "record.json",
    "history.parquet",
    "history.csv",
    "model.safetensors",
    "model.json",
    "columns.json",
    "evidence.json",
    "findings.json",
    "report.html",
    "checkpoints",
}

ROWS, EPOCHS, BATCH = 50, 3, 16


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    table = pd.DataFrame({"a": random.normal(size=ROWS), "b": random.choice(["x", "y"], ROWS)})
    table["late"] = np.where(table["a"] + random.normal(size=ROWS) > 0, "yes", "no")
    table.to_csv(folder / "rows.csv", index=False)
    return Settings(
        data=(str(folder / "rows.csv"),),
        target="late",
        model="mlp",
        hidden=(3,),
        learning_rate=0.01,
        batch_size=BATCH,
        epochs=EPOCHS,
        out=str(folder / "run"),
    )


class Keep(steepest.Callback):
    """Keeps the result."""

    def on_descent_end(self, result):
        self.result = result


@pytest.fixture(scope="module")
def result() -> Keep:
    return Keep()


@pytest.fixture(scope="module")
def path(settings, result) -> Path:
    return training.fit(settings, callbacks=[result]).path


@pytest.fixture
def copy(path, tmp_path) -> Path:
    return shutil.copytree(path, tmp_path / "copy")


@pytest.fixture
def here(monkeypatch, tmp_path, path, result) -> Path:
    """An empty folder to fit in again; the descent and the report, which take long, are not made anew."""
    monkeypatch.setattr(networks, "descend", lambda *_, **__: result.result)
    monkeypatch.setattr(training, "_write_report", lambda path, *_: path.write_text("drawn"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_holds_these_files_and_nothing_else(path):
    assert {each.name for each in path.iterdir()} == FILES
    assert {each.name for each in path.parent.iterdir()} == {"run", "rows.csv"}


def test_no_file_is_a_pickle(path):
    files = [each for each in path.rglob("*") if each.is_file()]
    assert {each.parent.name for each in files} == {"run", "checkpoints"}
    # A safetensors file begins with the length of its JSON, which may begin as a pickle does.
    assert not any(
        (content := each.read_bytes()).startswith((b"\x80", b"(lp", b"(dp")) and content[8:9] != b"{"
        for each in files
    )
    loaders = [each for each in Path(steepest.__file__).parent.rglob("*.py") if "pickle" in each.read_text()]
    assert loaders == []


def test_history_has_every_step_and_every_epoch(path):
    run = open_run(path)
    training_rows = run.record["split"]["training_rows"]
    steps_per_epoch = -(-training_rows // BATCH)
    assert training_rows == ROWS - run.record["split"]["validation_rows"] == 40
    assert run.steps["step"].tolist() == list(range(1, EPOCHS * steps_per_epoch + 1))
    assert run.steps["epoch"].tolist() == [e for e in range(1, EPOCHS + 1) for _ in range(steps_per_epoch)]
    assert np.isfinite(run.steps[["loss", "gradient_norm", "learning_rate"]]).all(axis=None)
    assert run.epochs["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert run.epochs["rows"].tolist() == [training_rows] * EPOCHS
    assert {"loss", "validation_loss", "validation_accuracy", "seconds"} <= set(run.epochs)
    weights = np.resize([BATCH] * (steps_per_epoch - 1) + [training_rows % BATCH or BATCH], len(run.steps))
    means = (run.steps["loss"] * weights).groupby(run.steps["epoch"]).sum() / training_rows
    np.testing.assert_allclose(run.epochs["loss"], means, rtol=1e-5)
    assert run.record["descent"]["steps"] == len(run.steps)


def test_settings_and_record_tell_how_to_run_it_again(path, settings):
    assert tomllib.loads((path / "settings.toml").read_text()) == tomllib.loads(
        open_run(path).record["settings_toml"]
    )
    assert open_run(path).record["command"] == recording.command(settings)
    assert open_run(path).record["steepest"] == steepest.__version__


def test_the_record_is_strict_json(path):
    def refuse(constant):
        raise AssertionError(constant)

    for name in ("record.json", "model.json", "columns.json"):
        json.loads((path / name).read_text("utf-8"), parse_constant=refuse)


def test_parameters_are_those_of_the_file(path):
    run = open_run(path)
    flat = load_file(path / "model.safetensors")
    assert set(flat) == {f"layer_{n}.{part}" for n in (1, 2) for part in ("weights", "bias")}
    assert flat["layer_1.weights"].shape == (run.plan.width, 3)
    np.testing.assert_array_equal(run.parameters["layer_2"]["bias"], flat["layer_2.bias"])
    assert run.record["model"]["parameters"] == sum(each.size for each in flat.values())


@pytest.mark.parametrize("raised", [RuntimeError("bug"), KeyboardInterrupt(), OSError(28, "No space left")])
@pytest.mark.parametrize("step", ["write_model", "write_history", "_write_report"])
@pytest.mark.parametrize("saved", [False, True])
def test_a_fit_that_stops_while_it_writes_leaves_no_run(settings, here, monkeypatch, step, raised, saved):
    """Nothing at all stays, or what it has saved."""
    written = getattr(training, step)

    def stop(*arguments):
        written(*arguments)
        assert (here / "run.unfinished" / "model.safetensors").exists(), "nothing is written aside"
        assert not (here / "run").exists()
        for name in ("history-1.safetensors", ".checkpoint.part", *(["checkpoint-1.safetensors"] * saved)):
            (here / "run.unfinished" / "checkpoints").mkdir(exist_ok=True)
            (here / "run.unfinished" / "checkpoints" / name).write_text("")
        raise raised

    monkeypatch.setattr(training, step, stop)
    with pytest.raises(SteepestError if isinstance(raised, OSError) else type(raised)) as error:
        training.fit(replace(settings, out="run"))
    assert [each.name for each in here.iterdir()] == ["run.unfinished"] * saved
    if isinstance(raised, OSError):
        assert str(error.value) == "The run run can't be written: No space left. Choose another --out."
    if isinstance(raised, KeyboardInterrupt):
        how = "interrupted; what was reached is kept. Go on with: steepest resume run"
        assert str(error.value) == how * saved


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_touched(settings, here, overwrite):
    (here / "folder").mkdir()
    (here / "folder" / "thesis.txt").write_text("years of work")
    (here / "file").write_text("more")
    (here / "empty").mkdir()
    (here / "other.unfinished").mkdir()
    (here / "other.unfinished" / "thesis.txt").write_text("never finished")
    for name in ("folder", "file", "empty"):
        with pytest.raises(SteepestError, match=f"{name} exists and is no run; it is left as it is"):
            training.fit(replace(settings, out=name), overwrite=overwrite)
    with pytest.raises(
        SteepestError, match=r"other\.unfinished exists and is no interrupted run; it is left"
    ):
        training.fit(replace(settings, out="other"), overwrite=overwrite)
    with pytest.raises(SteepestError, match="ends as the folders of interrupted runs do"):
        training.fit(replace(settings, out="new.unfinished"), overwrite=overwrite)
    assert (here / "folder" / "thesis.txt").read_text() == "years of work"
    assert (here / "file").read_text() == "more"
    assert {each.name for each in here.rglob("*")} == {
        "folder", "file", "empty", "other.unfinished", "thesis.txt"
    }  # fmt: skip
    assert (here / "other.unfinished" / "thesis.txt").read_text() == "never finished"


def test_a_run_is_replaced_only_when_asked(settings, here):
    training.fit(replace(settings, out="run"))
    (here / "run" / "note").write_text("of the first")
    with pytest.raises(
        SteepestError, match=r"The run run exists\. Choose another --out, add --overwrite, or"
    ):
        training.fit(replace(settings, out="run", epochs=2))
    assert (here / "run" / "note").exists()
    training.fit(replace(settings, out="run", epochs=2), overwrite=True)
    assert {each.name for each in (here / "run").iterdir()} == FILES - {"checkpoints"}  # nothing was trained
    assert tomllib.loads((here / "run" / "settings.toml").read_text())["epochs"] == 2
    assert [each.name for each in here.iterdir()] == ["run"]


def test_a_run_that_fails_to_be_replaced_stays(settings, here, monkeypatch):
    training.fit(replace(settings, out="run"))
    before = (here / "run" / "record.json").read_bytes()

    def stop(*_):
        raise OSError(28, "No space left")

    monkeypatch.setattr(training, "_write_report", stop)
    with pytest.raises(SteepestError, match="No space left"):
        training.fit(replace(settings, out="run"), overwrite=True)
    assert (here / "run" / "record.json").read_bytes() == before
    assert [each.name for each in here.iterdir()] == ["run"]


def test_a_folder_that_appears_during_the_fit_is_not_replaced(settings, here, monkeypatch):
    def appear(path, *_):
        (here / "run").mkdir()
        (here / "run" / "other").write_text("x")
        (here / "run.unfinished" / "checkpoints").mkdir()
        (here / "run.unfinished" / "checkpoints" / "checkpoint-1.safetensors").write_text("")

    monkeypatch.setattr(training, "_write_report", appear)
    with pytest.raises(SteepestError, match="exists and is no run"):
        training.fit(replace(settings, out="run"))
    assert [each.name for each in (here / "run").rglob("*")] == ["other"]
    unfinished = {each.name for each in (here / "run.unfinished").iterdir()}
    assert unfinished == (FILES | {"lock", "begun.json"}) - {"report.html"}, "it can still be gone on with"


def test_the_folder_is_named_after_the_data_and_numbered(settings, here):
    assert training.fit(replace(settings, out=None)).path == Path("runs/rows")
    assert training.fit(replace(settings, out=None)).path == Path("runs/rows-2")
    (here / "runs" / "rows-3.unfinished").mkdir()
    (here / "runs" / "rows-3.unfinished" / "settings.toml").write_text(to_toml(replace(settings, seed=9)))
    assert training.fit(replace(settings, out=None)).path == Path("runs/rows-4")
    assert training.fit(replace(settings, out=None, seed=9)).path == Path("runs/rows-3")
    (here / "runs" / "rows-5.unfinished").mkdir()
    (here / "runs" / "rows-5.unfinished" / "thesis.txt").write_text("never finished")
    assert training.fit(replace(settings, out=None)).path == Path("runs/rows-6")


@pytest.mark.parametrize(
    ("data", "name"),
    [("d/flights.csv.gz", "flights"), ("part-*.csv", "part"), ("*.csv", "run"), ("../.csv", "run")],
)
def test_a_free_name_is_a_plain_name(here, data, name):
    assert free_name(Settings(data=(data,))) == Path("runs", name)


def test_where_nothing_can_be_written_is_said_before_the_descent(settings, here, monkeypatch):
    monkeypatch.setattr(training, "prepare", lambda *_: pytest.fail("read the data"))
    (here / "file").write_text("")
    long = [("x" * length, "File name too long") for length in (250, 300)]
    for out, why in (("file/run", "file is no folder"), *long):
        with pytest.raises(SteepestError, match=f"can't be written: .*{why}"):
            training.fit(replace(settings, out=out))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SteepestError, match="takes no files from you"):
        check_out(here / "a" / "b", settings, overwrite=False)


def test_opening_what_is_no_run_names_those_there_are(path, here):
    shutil.copytree(path, here / "good")
    (here / "folder").mkdir()
    with pytest.raises(SteepestError, match=r"There is no run goood. Known runs: good."):
        open_run("goood")
    with pytest.raises(SteepestError, match=r"folder is no run: it has no record.json. Known runs: good."):
        open_run("folder")
    shutil.rmtree(here / "good")
    with pytest.raises(SteepestError, match=r"There is no run good\. steepest fit makes one"):
        open_run("good")


def test_a_run_of_another_format_is_refused(copy):
    record = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(SteepestError, match="has the format 99; this version reads 1"):
        open_run(copy)


PARTS = {"record": "record.json", "task": "model.json", "model": "model.json", "plan": "columns.json"}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", ['{"format": ', '"text"', "[]", "{}", None])
def test_a_damaged_json_file_is_named(copy, part, content):
    file = copy / PARTS[part]
    run = open_run(copy)
    del run.__dict__["record"]
    file.unlink() if content is None else file.write_text(content)
    if part == "record" and content in ("[]", "{}"):
        assert run.record == {}
        return
    with pytest.raises(SteepestError, match=f"is damaged: {PARTS[part]} can't be read .*Fit it again"):
        getattr(run, part)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: save_file({"layer_1.weights": np.zeros((2, 3), np.float32)}, path),
        lambda path: save_file(dict(list(load_file(path).items())[1:]), path),
        lambda path: save_file({name: each.T.copy() for name, each in load_file(path).items()}, path),
    ],
    ids=["gone", "empty", "truncated header", "truncated", "other", "lacks one", "transposed"],
)
def test_damaged_parameters_are_noticed(copy, damage):
    damage(copy / "model.safetensors")
    with pytest.raises(SteepestError, match=r"is damaged: model\.safetensors can't be read"):
        open_run(copy).parameters  # noqa: B018 - reading is what is tested


def test_a_name_with_a_colon_is_a_folder_and_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, steps = Path("last:0.2"), pd.DataFrame({"loss": [1.0, 0.5]})
    folder.mkdir()
    write_history(folder, steps, steps)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / folder / "history.parquet"), steps)
