"""svmlight files: as scikit-learn reads and writes them."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

import steepest
from expecting import fails
from steepest.cli import main
from steepest.data import text
from steepest.data.source import open_source
from test_stream import folder, passed, small

__all__ = ["folder", "small"]


def made(seed=0, count=400, width=600):
    draw = np.random.default_rng(seed)
    x = scipy.sparse.random_array((count, width), density=12 / width, rng=draw, format="csr")
    x = scipy.sparse.vstack([x[:3], scipy.sparse.csr_array((1, width)), x[4:]], format="csr")
    return x, np.where(x @ draw.normal(size=width) > 0, 1, -1)


def dumped(x, y, **options) -> bytes:
    written = io.BytesIO()
    dump_svmlight_file(x, y, written, zero_based=True, **options)
    return written.getvalue()


def write(name: str, content: str | bytes) -> None:
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(content if isinstance(content, bytes) else content.encode())


# Reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.svm", "a.svmlight", "a.libsvm", "a.SVM.gz", "a.libsvm.bz2"])
def test_rows_are_those_of_scikit_learn(folder, small, name):
    x, y = made(count=60)
    content = dumped(x, y, comment="made of\nnothing")
    write(name, {"gz": gzip.compress, "z2": bz2.compress}.get(name[-2:], bytes)(content))
    theirs, labels = load_svmlight_file(io.BytesIO(content), zero_based=True)
    source = open_source(name)
    assert source.schema == pa.schema(
        [("label", pa.int64()), ("features", pa.map_(pa.int64(), pa.float64()))]
    )
    found, places, _ = passed(source)
    assert [row["label"] for row in found] == labels.tolist() == y.tolist()
    for row, ours in enumerate(found):
        pairs = theirs[[row]]
        assert ours["features"] == [*zip(pairs.indices.tolist(), pairs.data.tolist(), strict=True)]
    assert found[3]["features"] == []
    before = content.splitlines().index(content.splitlines()[-60]) + 1
    assert places == [f"{name}, line {before + row}" for row in range(60)]
    for first in (1, 17, 59):
        assert passed(source, first=first)[:2] == (found[first:], places[first:])
    assert passed(source, ["label"])[0] == [{"label": row["label"]} for row in found]
    assert open_source(name, drop=["label"]).schema.names == ["features"]
    with fails("no column 'lable'", "'label'"):
        open_source(name, columns=["lable"])
    with fails("no column left"):
        open_source(name, drop=["label", "features"])


def test_comments_blank_lines_and_other_ends_of_lines(folder, small):
    write("a.svm", "# first\r\n\r\n+1 3:1.5 # a # b\r\n-1\r\n   \r\n  0  2:1e3\t7:-.5   \r\n#last")
    found, places, rejected = passed(open_source("a.svm"))
    assert [row["label"] for row in found] == [1, -1, 0]
    assert [row["features"] for row in found] == [[(3, 1.5)], [], [(2, 1000), (7, -0.5)]]
    assert places == [f"a.svm, line {line}" for line in (3, 4, 6)]
    assert rejected == []
    write("b.svm", "1 1:2\r0 3:4\r")
    assert passed(open_source("b.svm"))[:2] == (
        [{"label": 1, "features": [(1, 2)]}, {"label": 0, "features": [(3, 4)]}],
        ["b.svm, line 1", "b.svm, line 2"],
    )


def test_labels_that_are_no_whole_numbers(folder, small):
    write("a.svm", "".join(f"{label} 1:1\n" for label in [1, 2, 3, 4, 5, 6, "2.5", "nan", -7]))
    source = open_source("a.svm")
    assert source.schema.field("label").type == pa.int64()
    assert [row["label"] for row in passed(source)[0]] == [1, 2, 3, 4, 5, 6, 2.5, None, -7]


def test_groups(folder, small):
    x, y = made(count=30)
    groups = np.arange(30) // 4
    write("a.svm", dumped(x, y, query_id=groups))
    source = open_source("a.svm")
    assert source.schema.names == ["label", "qid", "features"]
    assert [row["qid"] for row in passed(source)[0]] == groups.tolist()
    write("b.svm", dumped(x, y, query_id=groups) + b"1 3:4\n1 qid:x 3:4\n")
    _, _, rejected = passed(open_source("b.svm", max_rejected=0.1))
    assert [(each.line - rejected[0].line, each.reason) for each in rejected] == [
        (0, "no qid, other than in the file's first row"),
        (1, "its qid is no whole number"),
    ]
    write("c.svm", "1 1:2 # qid:7\n" * 9 + "1 qid:3 1:2\n")
    found, _, rejected = passed(open_source("c.svm", max_rejected=0.1))
    assert (len(found), [each.reason for each in rejected]) == (
        9,
        ["a qid, other than in the file's first row"],
    )


BROKEN = [
    ("late 1:2", "the label 'late' is no number"),
    ("1,2 1:2", "the label '1,2' is no number"),
    ("1 2", "'2' is no pair of a whole number and a number, such as 17:0.5"),
    ("1 2:x", "'2:x' is no pair of a whole number and a number, such as 17:0.5"),
    ("1 x:2", "'x:2' is no pair of a whole number and a number, such as 17:0.5"),
    ("1 2:", "'2:' is no pair of a whole number and a number, such as 17:0.5"),
    ("1 2:3:4", "'2:3:4' is no pair of a whole number and a number, such as 17:0.5"),
    ("1 7:1 5:2", "feature 5 comes after 7: numbers must rise"),
    ("1 7:1 7:2", "feature 7 comes after 7: numbers must rise"),
    ("1 -7:1", "features are numbered from 0 to 2,147,483,647, not -7"),
    ("1 2147483648:1", "features are numbered from 0 to 2,147,483,647, not 2,147,483,648"),
    (b"\xff 1:2", "the label '\ufffd' is no number"),
    (b"1 1:\x00", "'1:\\x00' is no pair of a whole number and a number, such as 17:0.5"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN)
def test_lines_that_cannot_be_read(folder, small, line, reason):
    broken = line if isinstance(line, bytes) else line.encode()
    write("a.svm", b"1 1:2\n# a comment\n" + broken + b"\n" + b"0 3:4 # b\n" * 9)
    found, places, rejected = passed(open_source("a.svm", max_rejected=0.1))
    assert [row["features"] for row in found] == [[(1, 2)]] + [[(3, 4)]] * 9
    assert places == [f"a.svm, line {row}" for row in (1, *range(4, 13))]
    assert [(each.file, each.line, each.reason) for each in rejected] == [("a.svm", 3, reason)]
    with fails("a.svm, line 3: ", reason):
        passed(open_source("a.svm", max_rejected=0.0))
    with fails("1 of 11 rows can't be used", "a.svm, line 3: ", reason):
        passed(open_source("a.svm"))


def test_the_greatest_number_that_can_be_read(folder):
    write("a.svm", "1 2147483647:1")
    assert passed(open_source("a.svm"))[0] == [{"label": 1, "features": [(2**31 - 1, 1)]}]


def test_files_without_rows_that_can_be_used(folder):
    for content, parts in [
        ("# nothing\n\n", ["a.svm is empty"]),
        ("a,b\n1,2\n", ["a.svm, line 1: the label 'a,b' is no number"]),
    ]:
        write("a.svm", content)
        with fails(*parts):
            open_source("a.svm")


PAIRS = st.dictionaries(st.integers(0, 50), st.floats(allow_nan=False, allow_infinity=False), max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-3, 3), PAIRS, st.sampled_from(["", "#", " # 1:2", "\n\n"])), min_size=1),
    st.integers(1, 60),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_rows_in_blocks_of_any_size(folder, rows, size, end):
    lines = [" ".join([str(label), *(f"{number}:{value!r}" for number, value in sorted(pairs.items()))])
             + more for label, pairs, more in rows]  # fmt: skip
    write("a.svm", end.join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", size)
        found, places, rejected = passed(open_source("a.svm"))
    assert found == [{"label": label, "features": sorted(pairs.items())} for label, pairs, _ in rows]
    firsts = np.cumsum([1, *(1 + 2 * (more == "\n\n") for *_, more in rows)])[:-1]
    assert places == [f"a.svm, line {line}" for line in firsts] if end == "\n" else len(places) == len(rows)
    assert rejected == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=6), st.booleans())
def test_damaged_bytes_give_rows_or_one_error(folder, place, damage, replaces):
    content = dumped(*made(count=8, width=90))
    place %= len(content)
    write("a.svm", content[:place] + damage + content[place + replaces * len(damage) :])
    with contextlib.suppress(steepest.SteepestError):
        found, _, rejected = passed(open_source("a.svm", max_rejected=0.5))
        assert len(found) + len(rejected) >= 1


# Fits ----------------------------------------------------------------------------------------------

ASKED = {"optimizer": "adagrad", "learning_rate": 0.5, "epochs": 4, "batch_size": 32}


def test_a_fit_on_files_is_that_on_the_matrix(folder, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 3_000)
    x, y = made()
    of_matrix = steepest.fit({"features": x, "label": y}, "label", out="matrix", **ASKED)
    write("a.svm", dumped(x, y))
    write("b1.svm", dumped(x[:150], y[:150]))
    rest = pa.table({"features": next(iter(open_source({"f": x[150:]}).stretches())).rows["f"].cast(
        pa.map_(pa.int32(), pa.float64())), "label": y[150:]})  # fmt: skip
    pq.write_table(rest, "b2.parquet")
    for number, files in enumerate(("a.svm", ["b1.svm", "b2.parquet"])):
        run = steepest.fit(files, "label", out=f"run{number}", **ASKED)
        assert dict(run.plan.to_json()) == of_matrix.plan.to_json()
        np.testing.assert_array_equal(run.parameters["table"], of_matrix.parameters["table"])


def test_the_command_line(folder, capsys):
    x, y = made(count=600)
    write("news.svmlight", dumped(x[:400], y[:400]) + b"1 5:x\n")
    write("later.svmlight", dumped(x[400:], y[400:]) + b"1\n-1 10000:2\n")

    def run(*words: str) -> str:
        capsys.readouterr()
        main([*words])
        return capsys.readouterr().out

    asked = [f"--{name.replace('_', '-')}={value}" for name, value in ASKED.items()]
    run("fit", "news.svmlight", "--target", "label", "--out", "run", *asked)
    assert "news.svmlight,401," in (folder / "run" / "rejected.csv").read_text()
    figures = json.loads(run("evaluate", "run", "later.svmlight", "--json").splitlines()[-1])
    assert figures["rows"] == 202
    assert figures["scores"]["auc"] > 0.6
    run("predict", "run", "later.svmlight", "--out", "predicted.parquet")
    predicted = pq.read_table("predicted.parquet")["probability of 1"].to_numpy()
    assert len(predicted) == 202
    assert predicted[200] == predicted[201]
    assert np.mean((predicted[:200] > 0.5) == (y[400:] > 0)) > 0.55
    told = run("explain", "run", "later.svmlight", "--rows", "0,200")
    assert f"features: {x[[400]].indices[0]}" in told
    with fails("later.svmlight has no column", "'features'"):
        steepest.fit("later.svmlight", "feature")
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "news.svmlight"])
    assert "news.svmlight, line 401: '5:x' is no pair" in capsys.readouterr().err


def test_a_map_is_no_target_and_no_group(folder):
    x, y = made(count=50)
    write("a.svm", dumped(x, y))
    with fails("rows cannot be split by values of the type map"):
        steepest.fit("a.svm", "label", split_by="features", out="run")
    with fails("'features'"):
        steepest.fit("a.svm", "features", out="run")
