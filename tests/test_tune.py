"""`steepest tune`: the loss that each rate reaches, for one or several ways to descend."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import pytest

import steepest
from steepest import SteepestError
from steepest.cli import main
from steepest.data.rows import MEMORY
from steepest.run import open_run
from steepest.settings import Settings
from steepest.trials.telling import rate_rows
from steepest.trials.tuning import tune


@pytest.fixture(scope="module")
def frame():
    draws = np.random.default_rng(0)
    x = draws.normal(size=(300, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, -2.0] + draws.normal(size=300)})


@pytest.fixture(scope="module")
def file(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "t.csv"
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def tuned(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "new" / "tune"
    settings = Settings((file,), "y", optimizer="sgd", epochs=4)
    return tune(settings, optimizers=["sgd", "adam"], batch_sizes=[32, "all"], out=out), out


def test_every_combination_is_tried_and_the_best_is_named(tuned):
    found, _ = tuned
    assert [(each.optimizer, each.batch_size) for each in found.tried] == [
        ("sgd", 32), ("sgd", "all"), ("adam", 32), ("adam", "all"),
    ]  # fmt: skip
    # Four steps of batch descent are too few to tell rates apart; that is said and not hidden.
    assert [each.search.decided for each in found.tried] == [True, False, True, False]
    assert "too short" in found.tried[1].search.why
    reached = [each.search.losses[each.search.rates.index(each.search.choice)] for each in found.tried[::2]]
    assert found.best.reached == min(reached) < max(reached)


def test_the_command_that_is_told_reaches_the_loss_that_is_told(tuned, file, tmp_path, capsys):
    found, _ = tuned
    words = shlex.split(found.command)
    assert words[:2] == ["steepest", "fit"]
    main([*words[1:], "--out", str(tmp_path / "run"), "--tolerance", "0"])
    run = open_run(tmp_path / "run")
    # The targets are standardised for the descent; the record's scores are in their own unit.
    reached = run.record["figures"]["training"]["scores"]["rmse"] ** 2
    spread = pd.read_csv(file)["y"].var()
    assert reached / spread == pytest.approx(found.best.reached, rel=0.1)


def test_the_folder_holds_what_was_found_and_is_drawn_from(tuned):
    found, out = tuned
    assert sorted(each.name for each in out.parent.iterdir()) == ["tune"]  # nothing is left beside it
    assert sorted(each.name for each in out.iterdir()) == ["report.html", "tune.json"]
    stored = json.loads((out / "tune.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(found.to_json()))
    figure = steepest.plot.rate_against_loss(out)
    (line,) = [each for each in figure.axes[0].lines if each.get_label() == "loss reached"]
    assert len(line.get_xdata()) == len(found.best.search.rates)
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<figure") == 2  # of the searches that tried rates
    assert found.command in page.replace("&#39;", "'")
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


def test_a_run_is_tuned_with_its_own_settings(file, tmp_path, capsys):
    run = tmp_path / "run"
    steepest.fit(file, "y", out=str(run), optimizer="momentum", epochs=3, learning_rate=1e-5, l2=0.1)
    main(["tune", str(run), "--epochs", "2", "--json"])
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    (tried,) = found["tried"]
    assert (tried["optimizer"], tried["epochs"], found["target"]["name"]) == ("momentum", 2, "y")
    assert "--l2 0.1" in found["command"]
    assert f"--learning-rate {tried['search']['choice']:g}" in found["command"]
    table = printed[: printed.index("\n\n")].splitlines()
    assert len(table) == 1 + len(tried["search"]["rates"])
    assert sum("the choice" in line for line in table) == 1
    assert list(tmp_path.iterdir()) == [run]


def test_lists_are_read_from_the_command(file, tmp_path, capsys):
    out = tmp_path / "t"
    words = ["tune", file, "--target", "y", "--epochs", "1", "--out", str(out)]
    main([*words, "--batch-sizes", "16, 20", "--schedules", "cosine,constant", "--optimizers", "sgd"])
    tried = json.loads((out / "tune.json").read_text("utf-8"))["tried"]
    assert [(each["batch_size"], each["schedule"]) for each in tried] == [
        (16, "cosine"), (16, "constant"), (20, "cosine"), (20, "constant"),
    ]  # fmt: skip
    assert "sgd, batches of 16, cosine" in capsys.readouterr().out


def test_verdicts():
    search = {
        "rates": [0.1, 0.2, 0.4, 0.8, 1.6, 3.2],
        "losses": [0.9, 0.31, 0.3, 0.9, 1.5, None],
        "choice": 0.4,
        "interval": [0.2, 0.4],
        "start_loss": 1.0,
    }
    verdicts = ["too low", "works", "the choice", "too high", "above the start", "diverged"]
    assert [row[2] for row in rate_rows(search)] == verdicts


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--optimizers", "sgd,adm"], "Did you mean 'adam'"),
        (["--batch-sizes", "32,some"], "'some' is neither a whole number nor 'all'"),
        (["--batch-sizes", "0"], "A batch size is a whole number from 1"),
        (["--schedules", "cosin"], "Did you mean 'cosine'"),
        (["--model", "made:up"], "tune tries the rates of Steepest's own models, not of made:up"),
        (["--learning-rate", "0.1"], "--learning-rate"),
    ],
)
def test_what_can_not_be_tried_is_refused_in_one_line(file, words, says, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["tune", file, "--target", "y", *words])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.count("\n") == 1
    assert says in error


def test_a_folder_that_stands_there_is_left_as_it_is(frame, tmp_path):
    settings, mine = Settings(MEMORY, "y", epochs=1), tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    with pytest.raises(SteepestError, match=r"mine exists and has no tune\.json"):
        tune(settings, frame, out=mine, overwrite=True)
    assert [each.name for each in mine.iterdir()] == ["letter"]
    (mine / "tune.json").write_text("{}")
    with pytest.raises(SteepestError, match="add --overwrite"):
        tune(settings, frame, out=mine)
    tune(settings, frame, out=mine, overwrite=True)
    assert sorted(each.name for each in mine.iterdir()) == ["report.html", "tune.json"]


def test_a_page_that_fails_leaves_the_older_folder(frame, tmp_path, monkeypatch):
    old = tmp_path / "old"
    old.mkdir()
    (old / "tune.json").write_text("{}")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steepest.trials.pages.write_tuning", fails)
    with pytest.raises(SteepestError, match=r"can't be written: No space left on device"):
        tune(Settings(MEMORY, "y", epochs=1), frame, out=old, overwrite=True)
    assert (old / "tune.json").read_text() == "{}"
    assert list(tmp_path.iterdir()) == [old]
