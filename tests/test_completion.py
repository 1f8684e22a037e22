"""Shell completion: what bash is told when Tab is pressed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steepest.cli import main
from steepest.commands import completing
from steepest.descent.losses import LOSSES
from steepest.descent.models import ACTIVATIONS
from steepest.descent.optimizers import OPTIMIZERS
from steepest.descent.schedules import SCHEDULES
from steepest.minimization import ON_DIVERGENCE
from steepest.settings import HERE, ON_SPARK
from steepest.trained import MODELS


@pytest.fixture
def told(monkeypatch, capsys):
    """Give the words that bash is told for a line, at its last word."""

    def told(line: str) -> list[str]:
        monkeypatch.setenv("_STEEPEST_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        with pytest.raises(SystemExit) as stop:
            main([])
        assert stop.value.code == 0
        return capsys.readouterr().out.split()

    return told


def test_the_names_are_those_that_there_are():
    there_are = (MODELS, ACTIVATIONS, LOSSES, OPTIMIZERS, SCHEDULES, ON_DIVERGENCE, (HERE, ON_SPARK))
    names = ("MODELS", "ACTIVATIONS", "LOSSES", "OPTIMIZERS", "SCHEDULES", "ON_DIVERGENCE", "PLACES")
    for name, known in zip(names, there_are, strict=True):
        assert getattr(completing, name) == tuple(known), name


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("steepest e", ["explore", "export", "evaluate", "explain"]),
        ("steepest fit rows.csv --pat", ["--patience"]),
        ("steepest fit --optimizer ada", ["adagrad", "adam", "adamw"]),
        ("steepest fit --schedule co", ["constant", "cosine", "cosine_restarts"]),
        ("steepest fit --loss q", ["quantile"]),
        ("steepest fit --model ", ["linear", "mlp"]),
        ("steepest fit --activation ", ["relu", "tanh", "gelu"]),
        ("steepest fit --batch-size ", ["all"]),
        ("steepest fit --learning-rate ", ["auto"]),
        ("steepest fit --on-divergence ", ["stop", "back-off"]),
        ("steepest fit --on s", ["spark"]),
        ("steepest fit --log ", ["tensorboard:", "mlflow:"]),
        ("steepest compare --optimizer s", ["sgd"]),
        ("steepest fit ro", []),
    ],
)
def test_commands_options_and_values_are_completed(told, line, words):
    assert told(line) == words


def test_runs_are_completed_where_they_are(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/flights", "runs/fares", "other/mine", "runs/later.unfinished", "runs/notes"):
        Path(folder).mkdir(parents=True)
        Path(folder, "settings.toml" if "." in folder else "record.json").touch()
    Path("runs/notes/record.json").unlink()
    assert told("steepest show ") == ["runs/fares", "runs/flights"]
    assert told("steepest predict runs/fl") == ["runs/flights"]
    assert told("steepest fit --from other/") == ["other/mine"]
    assert told("steepest resume ") == ["runs/later"]


def test_bash_completes(tmp_path):
    command = tmp_path / "steepest"
    command.write_text(f"#!{sys.executable}\nfrom steepest.cli import main\nmain()\n")
    command.chmod(0o755)
    script = """
        eval "$(steepest --show-completion bash)"
        COMP_WORDS=(steepest fit --optimizer ada) COMP_CWORD=3
        _steepest_completion steepest
        echo "${COMPREPLY[@]}"
        complete -p steepest
    """
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=True,
    )
    completed, rule = done.stdout.splitlines()
    assert completed == "adagrad adam adamw"
    assert "-o default" in rule, "files are completed where nothing else is"
    assert done.stderr == ""
