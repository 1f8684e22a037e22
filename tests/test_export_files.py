"""Runs as files: ``steepest export``, what it refuses, and safetensors by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from exporting import RUNS, predicted, run_of
from steepest import export
from steepest.cli import main
from steepest.errors import SteepestError


@pytest.mark.parametrize("name", [name for name in RUNS if name != "mails"])
def test_predictions_can_be_computed_of_a_file_of_safetensors(name, tmp_path):
    """By what the file says alone, but for its table of sparse features and the encoding of rows."""
    run, table = run_of(name)
    export.to_file(run, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        said = {key: json.loads(value) for key, value in file.metadata().items()}
    arrays = load_file(tmp_path / "model.safetensors")
    inputs = export.keras_inputs(run, table)
    values = wide = None
    if said["table"]:
        places = inputs["tailnum.places"][:, 0]
        first, stop = said["table"]["tailnum"]
        found = np.pad(arrays["table"][first:stop], ((0, 1), (0, 0)))[places]
        size = said["model"]["embedding"]
        values, wide = np.concatenate([inputs["features"], found[:, :size]], axis=1), found[:, size:]
    else:
        values, wide = inputs, 0.0
    assert (inputs if values is inputs else inputs["features"]).shape[1] == len(said["features"])
    functions = {
        "relu": lambda z: np.maximum(z, 0),
        "tanh": np.tanh,
        "gelu": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
        "exponential": np.exp,
        "linear": lambda z: z,
    }
    last = len(said["model"]["hidden"]) + 1
    for layer in range(1, last + 1):
        values = values @ arrays[f"layer_{layer}.weights"] + arrays[f"layer_{layer}.bias"]
        values = values + wide if layer == last else functions[said["model"]["activation"]](values)
    found = functions[said["link"]](values) * said["deviation"] + said["center"]
    expected = predicted(run, table).iloc[:, int(bool(said["labels"])) :]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * said["deviation"])
    assert said["target"] == run.task.target
    assert said["labels"] == list(run.task.labels)
    assert str(run.path.parent) not in json.dumps(said)


def test_the_command_says_what_it_wrote_and_what_is_not_in_it(tmp_path, capsys):
    run, _ = run_of("mails")
    out = tmp_path / "new" / "model.onnx"
    main(["export", str(run.path), "--out", str(out), "--json"])
    said = capsys.readouterr()
    line, found = said.out.splitlines()
    assert line == f"{run.path} -> {out}"
    not_included = {"words": "it is cut into words"}
    assert json.loads(found) == {"run": str(run.path), "out": str(out), "not_included": not_included}
    assert "Not included: column 'words', because it is cut into words." in said.err
    onnx.checker.check_model(onnx.load(out), full_check=True)
    assert [each.name for each in out.parent.iterdir()] == ["model.onnx"]


def test_a_file_of_that_name_is_replaced_as_by_predict(tmp_path):
    run, _ = run_of("penguins")
    out = tmp_path / "model.ONNX"
    out.write_text("old")
    main(["export", str(run.path), "--out", str(out)])
    assert onnx.load(out, format="protobuf").producer_name == "steepest"


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    assert left.value.code == 2
    return capsys.readouterr().err.removeprefix("steepest: ").strip()


def test_what_can_not_be_written_is_refused_in_a_sentence(tmp_path, capsys, monkeypatch):
    run, _ = run_of("penguins")
    says = lambda out, run=run.path: refused(capsys, "export", run, "--out", out)  # noqa: E731
    assert says("model.pkl") == (
        "model.pkl names no format. Name a file that ends in .onnx, .keras or .safetensors."
    )
    kept = (run.path / "model.safetensors").read_bytes()
    assert "model.safetensors is within the run; it is left as it is." in says(run.path / "model.safetensors")
    assert (run.path / "model.safetensors").read_bytes() == kept
    (tmp_path / "file").write_text("")
    assert "can't be written" in says(tmp_path / "file" / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "can't be written" in says(tmp_path / "folder.onnx")
    assert says("x.onnx", tmp_path / "nothing").startswith(f"There is no run {tmp_path / 'nothing'}.")
    monkeypatch.setattr("steepest.export.onnx.MOST_BYTES", 100)
    assert "bytes of parameters; a file of ONNX has 100 at most. Export .safetensors." in says("x.onnx")
    monkeypatch.setattr("steepest.export.safetensors.MOST_METADATA", 100)
    assert "the head of safetensors has room for 100." in says(tmp_path / "x.safetensors")
    assert not list(tmp_path.glob("x.*")) + list(tmp_path.glob(".*"))


def test_a_package_that_is_missing_names_the_extra(tmp_path, capsys, monkeypatch):
    run, _ = run_of("penguins")
    for module in ("graph", "columns", "onnx"):
        monkeypatch.delitem(sys.modules, f"steepest.export.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = refused(capsys, "export", run.path, "--out", tmp_path / "x.onnx")
    assert said.startswith("ONNX is written by the package onnx")
    assert said.endswith("Install it: pip install 'steepest[onnx]'.")


def test_keras_is_imported_for_its_own_files_only(tmp_path):
    run, _ = run_of("penguins")
    code = (
        "import sys; from steepest import export;"
        f"export.to_file({str(run.path)!r}, {str(tmp_path / 'x.safetensors')!r});"
        f"export.to_file({str(run.path)!r}, {str(tmp_path / 'x.onnx')!r});"
        f"export.to_sklearn({str(run.path)!r});"
        "assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_column_is_missing_from_rows():
    run, table = run_of("penguins")
    with pytest.raises(SteepestError, match="no column 'island'"):
        export.onnx_inputs(run, table.drop(columns="island"))
