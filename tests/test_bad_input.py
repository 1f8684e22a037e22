"""Bad input from the command line: one line that says what, where and what to try, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steepest import training
from steepest.cli import main
from steepest.errors import SteepestError
from steepest.run import open_run

ROWS = 60


def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame({"a": random.normal(size=ROWS), "b": random.normal(size=ROWS)})
    table["c"] = random.choice(["x", "y"], ROWS)
    table["late"] = np.where(table["a"] + random.normal(size=ROWS) > 0, "yes", "no")
    table["delay"] = 3 * table["a"] + random.normal(size=ROWS)
    table["day"] = random.integers(0, 9, ROWS)
    return table


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with rows and a run on them."""
    made = tmp_path_factory.mktemp("made")
    rows().to_csv(made / "rows.csv", index=False)
    words = ["--target", "late", "--epochs", "1", "--learning-rate", "0.01", "--out", str(made / "run")]
    main(["fit", str(made / "rows.csv"), *words])
    return made


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """A working folder with rows.csv and run."""
    shutil.copy(made / "rows.csv", tmp_path)
    shutil.copytree(made / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() if each.is_file() else b"" for each in folder.rglob("*")}


@pytest.fixture
def refused(here, capsys):
    """Run the command line, and check that it refuses in one line and changes nothing but what is named."""

    def refused(*words, but: str = "?") -> str:
        def contents_but() -> dict[str, bytes]:
            return {name: content for name, content in contents(here).items() if f"/{but}" not in name}

        before = contents_but()
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert stop.value.code == 2
        assert contents_but() == before
        assert "Traceback" not in err
        assert out == ""
        *remarks, line = err.splitlines()
        assert line.startswith("steepest: ")
        assert all(not each.startswith("steepest: ") for each in remarks)
        assert line.endswith((".", "?", "]"))
        return line.removeprefix("steepest: ")

    return refused


def change(**columns) -> None:
    """Write rows.csv anew with other columns."""
    rows().assign(**columns).to_csv("rows.csv", index=False)


def at(row: int, value: object, of: str) -> pd.Series:
    column = rows()[of].astype(object)
    column[row] = value
    return column


FIT = ("fit", "rows.csv", "--target", "late", "--out", "new", "--epochs", "1")

OPTIONS = [
    (("--optimizer", "adm"), "There is no optimizer 'adm'. Did you mean 'adam'?"),
    (("--loss", "hing"), "There is no loss 'hing'. Did you mean 'hinge'?"),
    (("--model", "mpl"), "There is no model 'mpl'. Did you mean 'mlp'?"),
    (("--schedule", "cosin"), "There is no schedule 'cosin'. Did you mean 'cosine'?"),
    (("--activation", "rellu"), "There is no activation 'rellu'. Did you mean 'relu'?"),
    (("--loss", "poisson"), "The loss poisson needs numbers from 0 up, which the target 'late' does not"),
    (("--target", "Late"), "rows.csv has no column 'Late' (target). Did you mean 'late'?"),
    (("--split-by", "dya"), "rows.csv has no column 'dya' (column to split by). Did you mean 'day'?"),
    (("--weights", "bb"), "rows.csv has no column 'bb' (column of row weights). Did you mean 'b'?"),
    (("--drop", "delays"), "rows.csv has no column 'delays' to leave out. Did you mean 'delay'?"),
    (("--drop", "late"), "--drop leaves out 'late', which is the target."),
    (("--drop", "day", "--split-by", "day"), "--drop leaves out 'day', which is the column to split by."),
    (("--weights", "late"), "The column 'late' can't be both the target and the column of row weights."),
    (("--split-by", "late"), "The column 'late' can't be both the target and the column to split by."),
    (("--weights", "c"), "The column of row weights 'c' holds string; weights are numbers."),
    (("--weights", "a"), "The column of row weights 'a' holds -0.1321048632913019 at rows.csv, line 3; "),
    (("--batch-size", "0"), "A batch size is a whole number from 1, or 'all', not 0."),
    (("--batch-size", "some"), "Invalid value for '--batch-size': 'some' is neither a whole number nor"),
    (("--epochs", "0"), "A fit needs at least one epoch, not 0."),
    (("--epochs", "many"), "Invalid value for '--epochs'"),
    (("--seed", "-1"), "Invalid value for '--seed'"),
    (("--seed", "4294967296"), "A seed is a whole number from 0 to 4294967295, not 4294967296."),
    (("--learning-rate", "0"), "A learning rate is a number above zero, or 'auto', not 0.0."),
    (("--learning-rate", "-1"), "A learning rate is a number above zero, or 'auto', not -1.0."),
    (("--learning-rate", "nan"), "A learning rate is a number above zero, or 'auto', not nan."),
    (("--learning-rate", "inf"), "A learning rate is a number above zero, or 'auto', not inf."),
    (("--learning-rate", "fast"), "Invalid value for '--learning-rate'"),
    (("--dropout", "1.5"), "Dropout must lie in [0, 1), not 1.5."),
    (("--dropout", "nan"), "Dropout must lie in [0, 1), not nan."),
    (("--hidden", "0"), "Each hidden layer needs at least one unit"),
    (("--hidden", ""), "Each hidden layer needs at least one unit"),
    (("--hidden", "a,b"), "Invalid value for '--hidden': 'a,b' is no list such as 64,32."),
    (("--clip-norm", "0"), "The norm to clip gradients to must be above zero, not 0.0."),
    (("--tolerance", "-1"), "The tolerance must be 0 or above; tolerance=-1.0."),
    (("--l1", "-1"), "l1 must be 0 or above."),
    (("--l2", "nan"), "l2 must be 0 or above."),
    (("--validation", "1.5"), "the part of the rows to hold out is 1.5, which is not between 0 and 1."),
    (("--validation", "1"), "the part of the rows to hold out is 1.0, which is not between 0 and 1."),
    (("--validation", "nan"), "the part of the rows to hold out is nan, which is not between 0 and 1."),
    (("--validation", "row.csv"), "there is no file row.csv. Did you mean 'rows.csv'?"),
    (("--validation", "rows.csv", "--split-by", "day"), "--split-by has nothing to split where --validation"),
    (("--class-weight", "maybe=2"), "--class-weight names 'maybe', which is no class."),
    (("--class-weight", "yes=-2"), "--class-weight gives 'yes' the weight '-2'; weights lie between 0 and"),
    (("--class-weight", "twice"), "--class-weight holds 'twice', which gives no class a weight."),
    (("--target", "delay", "--class-weight", "balanced"), "--class-weight needs a target with classes"),
    (("--settings", "none.toml"), "There is no settings file none.toml."),
    (("--settings", "run"), "run is a folder. Did you mean run/settings.toml?"),
    (("--settings", "rows.csv"), "The settings file rows.csv is not valid TOML: "),
    (("--out", "run"), "The run run exists. Choose another --out, add --overwrite, or "),
    (("--out", "rows.csv", "--overwrite"), "rows.csv exists and is no run; it is left as it is."),
    (("--out", "rows.csv/run"), "The run rows.csv/run can't be written: "),
    (("--epoch", "1"), "No such option: --epoch"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), OPTIONS, ids=[" ".join(words) for words, _ in OPTIONS])
def test_a_wrong_option(refused, words, said):
    assert refused(*FIT, *words).startswith(said)


FILES = {
    "none.csv": (None, "there is no file none.csv. Did you mean 'rows.csv'?"),
    "empty.csv": (b"", "empty.csv is empty (0 bytes)."),
    "header.csv": (b"a,late\n", "header.csv has column names but no rows."),
    "one.csv": (b"a,late\n1,yes\n", "one row is too few to hold some out"),
    "class.csv": (
        b"a,late\n" + b"1,yes\n2,yes\n" * 9,
        "The target 'late' has one value only, 'yes', in all 18 rows",
    ),
    "missing.csv": (b"a,late\n" + b"1,\n2,\n" * 9, "The target 'late' is missing in every row."),
    "twice.csv": (b"a,a,late\n1,2,yes\n", "twice.csv has more than one column named 'a'."),
    "ragged.csv": (
        b"a,late\n1,yes\n2\n",
        "1 of 2 rows can't be used, the first: ragged.csv, line 3: 1 cells for the 2 columns of line 1.",
    ),
    "latin.csv": (
        b"a,late\n\xe9,yes\n",
        "1 of 1 rows can't be used, the first: latin.csv, line 2: bytes that are not UTF-8 text",
    ),
    "mixed.csv": (
        b"a,late\n" + b"1,yes\n2,no\n" * 9 + b"oops,yes\n",
        "column 'a' mixes types: it holds numbers, but has 1 value that is not: 'oops' (mixed.csv, line 20). "
        "Correct them, or leave the column out with --drop a. Or allow a share of such rows with "
        "--max-rejected.",
    ),
    "infinite.csv": (
        b"a,late\n" + b"1,yes\n2,no\n" * 9 + b"inf,yes\n",
        "column 'a' has 1 infinite value: infinite.csv, line 20.",
    ),
    "target.csv": (
        b"a,late\n" + b"1,1.5\n2,2.5\n3,3.5\n" * 9 + b"3,-inf\n",
        "column 'late' has 1 infinite value: target.csv, line 29.",
    ),
    "large.csv": (
        b"a,late\n" + b"1,1e300\n2,-1e300\n3,1e299\n" * 9,
        "The target 'late' holds numbers from -1e+300 to 1e+300, which are too large to compute with.",
    ),
    "alone.csv": (b"late\nyes\nno\n" * 9, "the table has no column to learn from."),
    "broken.parquet": (b"PAR1" + bytes(40), "broken.parquet cannot be read as Parquet: "),
    "broken.csv.gz": (b"a,late\n1,yes\n", "broken.csv.gz"),
    "broken.jsonl": (b'{"a": 1\n', "broken.jsonl"),
    "broken.feather": (b"ARROW1 and no more", "broken.feather"),
    "table.xlsx": (b"PK", "table.xlsx: this kind of file cannot be read. Known endings: .csv, "),
    "*.none": (None, "no file matches '*.none'."),
    "run/checkpoints": (None, "run/checkpoints is a folder, not a file, and has no Parquet files."),
}


@pytest.mark.parametrize("file", FILES)
def test_a_wrong_file(refused, here, file):
    content, said = FILES[file]
    if content is not None:
        (here / file).write_bytes(content)
    assert refused("fit", file, "--target", "late", "--out", "new").startswith(said)


def test_weights_that_are_none(refused):
    change(w=0.0)
    assert refused(*FIT, "--weights", "w") == "The row weights in 'w' are all 0."
    change(w=at(3, np.nan, "b").abs())
    assert "'w' holds nan at rows.csv, line 5;" in refused(*FIT, "--weights", "w")
    change(w=1e60)
    assert "'w' holds 1e+60 at rows.csv, line 2" in refused(*FIT, "--weights", "w")


def test_a_validation_file_that_does_not_fit(refused):
    table = rows()
    table.drop(columns="late").to_csv("v.csv", index=False)
    held = (*FIT, "--validation", "v.csv")
    assert refused(*held).startswith("v.csv has no column 'late' (target).")
    table.drop(columns="day").to_csv("v.csv", index=False)
    assert refused(*held, "--weights", "day").startswith("v.csv has no column 'day' (column of row weights).")
    table.assign(late=1).to_csv("v.csv", index=False)
    assert refused(*held).startswith(
        "column 'late' holds numbers where earlier rows hold text: 1 (v.csv, line 2)."
    )
    table.assign(late=None).to_csv("v.csv", index=False)
    assert refused(*held).startswith("The target 'late' is missing in every row in v.csv.")
    table.drop(columns="a").to_csv("v.csv", index=False)
    assert "no column 'a'" in refused(*held)


def test_times_are_no_target(refused):
    rows().assign(when=pd.date_range("2013", periods=ROWS)).to_parquet("t.parquet")
    said = refused("fit", "t.parquet", "--target", "when")
    assert said.startswith("The target 'when' holds timestamp values; a target holds numbers or classes.")


def test_a_learning_rate_that_diverges(refused):
    words = ("--target", "delay", "--optimizer", "sgd", "--learning-rate", "1e6", "--epochs", "9")
    said = refused(*FIT, *words, but="new")
    assert said.startswith("The descent diverged at step ")
    assert "at a learning rate of 1e+06." in said
    assert said.endswith("Try --learning-rate 100000, --on-divergence back-off, or --clip-norm 1.")
    assert refused("predict", "new", "rows.csv", "--out", "p.csv").startswith(
        "The descent of new diverged at step "
    )


def test_what_is_missing_is_asked_for(refused):
    assert refused("fit", "--target", "late").startswith("No data was named.")
    assert refused("fit", "rows.csv").startswith("No target was named.")
    assert refused("fit", "rows.csv", "--target", "").startswith("No target was named.")
    assert refused("predict", "run") == "Missing argument 'data'. See steepest predict --help."
    assert refused("predict", "run", "rows.csv") == "Missing option '--out'. See steepest predict --help."
    assert refused("fits") == "No such command 'fits'. Did you mean 'fit'? See steepest --help."


PREDICT = ("predict", "run", "rows.csv", "--out", "p.csv")


@pytest.mark.parametrize("words", [PREDICT, ("evaluate", "run", "rows.csv")], ids=["predict", "evaluate"])
def test_rows_that_the_run_cannot_take(refused, words):
    rows().drop(columns="b").to_csv("rows.csv", index=False)
    assert refused(*words).startswith("rows.csv has no column 'b'.")
    change(a="text")
    assert refused(*words).startswith(
        "column 'a' holds text where numbers were learned: 'text' (rows.csv, line 2)"
    )
    change(a=at(3, np.inf, "a"))
    assert refused(*words).startswith("column 'a' has 1 infinite value: rows.csv, line 5.")
    change(a=1e300)
    assert refused(*words).startswith("column 'a' has values too far from those it was trained with")
    Path("rows.csv").write_text("")
    assert refused(*words).startswith("rows.csv is empty")
    Path("rows.csv").unlink()
    assert refused(*words).startswith("there is no file rows.csv.")


@pytest.mark.parametrize(
    "words",
    [("show",), ("evaluate", "rows.csv"), ("predict", "rows.csv", "--out", "p.csv")],
    ids=["show", "evaluate", "predict"],
)
def test_what_is_no_run(refused, here, words):
    command, *rest = words
    assert refused(command, "rum", *rest) == "There is no run rum. Known runs: run."
    assert refused(command, "rows.csv", *rest) == "There is no run rows.csv. Known runs: run."
    (here / "folder").mkdir()
    said = "The folder folder is no run: it has no record.json. Known runs: run."
    assert refused(command, "folder", *rest) == said
    (here / "run" / "record.json").write_text('{"format": ')
    assert refused(command, "run", *rest).startswith("The run run is damaged: record.json can't be read")


@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "columns.json"])
@pytest.mark.parametrize("words", [PREDICT, ("evaluate", "run", "rows.csv")], ids=["predict", "evaluate"])
def test_a_damaged_run(refused, here, file, words):
    content = (here / "run" / file).read_bytes()
    (here / "run" / file).write_bytes(content[: len(content) // 2])
    assert refused(*words).startswith(f"The run run is damaged: {file} can't be read")


def test_targets_that_a_run_cannot_be_judged_by(refused):
    change(late=at(3, "maybe", "late"))
    said = refused("evaluate", "run", "rows.csv")
    assert said.startswith("The target 'late' holds 'maybe' (rows.csv, line 5), which is none of the classes")
    change(late=1)
    assert refused("evaluate", "run", "rows.csv").startswith(
        "The target 'late' holds int64; the run's classes"
    )
    change(late=None)
    assert refused("evaluate", "run", "rows.csv").startswith("The target 'late' is missing in every row.")
    rows().drop(columns="late").to_csv("rows.csv", index=False)
    assert refused("evaluate", "run", "rows.csv").startswith("rows.csv has no column 'late'.")


def test_where_predictions_cannot_go(refused, here):
    predict = PREDICT[:-1]
    assert refused(*predict, "p.xls") == "p.xls names no format. Name a file that ends in .csv or .parquet."
    assert refused(*predict, "p").startswith("p names no format.")
    assert refused(*predict, "rows.csv/p.csv").startswith("rows.csv/p.csv can't be written: ")
    (here / "folder.csv").mkdir()
    assert refused(*predict, "folder.csv").startswith("folder.csv can't be written: ")
    assert refused(*predict, "./rows.csv").startswith("rows.csv holds rows to predict; it is left")


def test_a_prediction_that_cannot_be_finished_leaves_the_old_file(refused, here, monkeypatch):
    from steepest.data import writing

    class Full(writing.WRITERS[".csv"]):
        def write_table(self, table):
            super().write_table(table)
            assert len(list(here.glob(".p.csv.*.partial.csv"))) == 1, "nothing is written aside"
            raise OSError(28, "No space left")

    (here / "p.csv").write_text("old")
    monkeypatch.setitem(writing.WRITERS, ".csv", Full)
    assert refused(*PREDICT) == "p.csv can't be written: No space left."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_no_files(refused, here):
    (here / "closed").mkdir(mode=0o500)
    assert "takes no files from you" in refused(*FIT, "--out", "closed/run")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((*FIT, "--optimizer", "adm"), "There is no optimizer 'adm'."),
        ((*FIT, "--hidden", "a"), "Invalid value for '--hidden': 'a' is no list such as 64,32."),
        (("show", "none"), "There is no run none."),
    ],
)
def test_errors_as_json(here, capsys, words, error):
    with pytest.raises(SystemExit):
        main([*words, "--json"])
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert json.loads(line)["error"] == error
    assert err == f"steepest: {error} {json.loads(line)['hint']}\n"


def test_debug_raises_the_error_itself(here):
    with pytest.raises(SteepestError, match="no optimizer"):
        main([*FIT, "--optimizer", "adm", "--debug"])


def test_interrupted_before_anything_is_written(here, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "prepare", interrupt)
    before = contents(here)
    with pytest.raises(SystemExit) as stop:
        main([*FIT])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "steepest: interrupted; nothing was written.\n"
    assert contents(here) == before


# What is strange, but no error


STRANGE = {
    "a b": "a",
    'quo"te': "b",
    "<script>alert(1)</script>": "c",
    "--seed": "late",
    "[red]ünï, 'x'{{7*7}}": "delay",
    "../../day": "day",
}


def test_strange_names_are_only_names(here, capsys):
    rows().rename(columns={old: new for new, old in STRANGE.items()}).to_csv("strange.csv", index=False)
    main(
        ["fit", "strange.csv", "--target=--seed", "--split-by", "../../day", "--epochs", "1", "--out", "new"]
    )
    main(["predict", "new", "strange.csv", "--out", "p.csv"])
    main(["evaluate", "new", "strange.csv"])
    main(["show", "new"])
    assert "'--seed' holds two values" in capsys.readouterr().out
    report = Path("new/report.html").read_text("utf-8")
    assert "<script>alert" not in report
    assert "&lt;script&gt;alert" in report
    assert "{{7*7}}" in report
    run = open_run("new")
    assert [column.name for column in run.plan.columns] == [
        name for name in STRANGE if name not in ("--seed", "../../day")
    ]
    assert {each.name for each in here.iterdir()} == {"rows.csv", "run", "strange.csv", "new", "p.csv"}
    main(["fit", "--settings", "new/settings.toml", "--out", "again"])
    assert Path("again/model.safetensors").read_bytes() == Path("new/model.safetensors").read_bytes()


def test_a_target_that_is_partly_missing_is_left_out_and_counted(here, capsys):
    late = rows()["late"].where(np.arange(ROWS) >= 7)
    change(late=late, nothing=np.nan)
    main([*FIT])
    err = capsys.readouterr().err
    assert "Left out 7 rows: the target 'late' is missing." in err
    assert "Left out 'nothing': All of its values are missing." in err
    record = open_run("new").record
    assert record["data"]["left_out"] == [{"reason": "the target 'late' is missing", "rows": 7}]
    assert {"name": "nothing", "reason": "All of its values are missing."} in record["dropped"]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_column_that_looks_like_another_at_first_is_read_anew(here, monkeypatch, capsys, command):
    """Numbers at first, text after them: the run was trained with text."""
    monkeypatch.setattr("steepest.data.text.LOOK_BYTES", 64)
    monkeypatch.setattr("steepest.data.text.BLOCK_BYTES", 256)
    table = rows()
    table["c"] = table["c"].astype(object)
    table.loc[:4, "c"] = 7
    table.to_csv("later.csv", index=False)
    main([command, "run", "later.csv", *(["--out", "p.csv"] if command == "predict" else [])])
    assert str(ROWS) in capsys.readouterr().out


def test_missing_values_and_unseen_categories_can_be_predicted(here):
    table = rows()
    table.loc[0, ["a", "b", "c"]] = None
    table.loc[1, "c"] = "never seen"
    table.to_csv("holes.csv", index=False)
    main(["predict", "run", "holes.csv", "--out", "p.csv"])
    predicted = pd.read_csv("p.csv")
    assert len(predicted) == ROWS
    assert predicted["probability of yes"].between(0, 1).all()
