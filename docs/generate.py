"""Write docs/command-line.md from the command line itself: python docs/generate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from steepest.cli import app

PAGE = Path(__file__).with_name("command-line.md")

HEAD = """# The command line

Written by `docs/generate.py` from `steepest --help`; a test fails when it is stale.

`steepest --install-completion` lets bash, zsh, fish or PowerShell complete commands, options, names such as
those of optimizers, and runs; see [logging.md](logging.md#shell-completion).

Every command ends with exit status 0 if all went well, 2 with one line on standard error for anything that
you can put right, and 130 after Ctrl-C. Results go to standard output, words on the way to standard error.
"""


PROSE = {
    "fit": """\
While it is made, a run is the folder `RUN.unfinished`, beside the one that it becomes. Ctrl-C (or a kill)
once: where the descent stands is saved, and the exit status is 130 (143); a second time: it leaves at
once, with what was saved before. The same command, or `steepest resume RUN`, goes on, in the middle of an
epoch too, and ends with the bytes of a run that was never interrupted. Nothing stays where nothing was
saved yet. Keras models are saved after each epoch; all others every `--checkpoint-every` seconds.

`--from RUN` takes the settings of a complete run; what is given besides overrides them, and `--epochs`
are epochs more. Where nothing but these differs, the run ends as a longer one would have, byte for byte.
With other rates, other data or another schedule it starts with that run's parameters and column plan, and
says so. `RUN` may be the URL of a run on HDFS.

`--patience 5` stops after five epochs running without a better `--monitor` and keeps the best epoch's
weights. Any figure of an epoch can be watched: `loss`, `validation_loss`, `validation_accuracy` and the
like.

`--memory 4GB` bounds what reading, encoding and shuffling take. Encoded rows that are larger than a part
of it go to disk; those of files stay in the cache for further epochs and runs: see `steepest cache`.

Rows that can't be used (too many fields, no number, bad encoding) are listed in `RUN/rejected.csv` with
file, line and reason. More than `--max-rejected` of all rows are an error; 0 accepts none.

`--log descent.jsonl`, `--log tensorboard:FOLDER` and `--log mlflow:FOLDER` log the descent while it goes on,
and may be given together; [logging.md](logging.md) tells what they hold. No bit of the model depends on it.

`--on spark --workers 8` descends on a cluster; the run is that of one machine, to rounding. What a fit on
Spark needs, how it works and what it does about failures is said in [spark.md](spark.md).
""",
    "resume": """\
RUN is the name that the run is to have; `RUN.unfinished` is understood as well. Data that has changed
since is refused, and so is a run that another process is making. A run that was begun on Spark goes on
there, from the last checkpoint in the storage that its workers share; if that is gone, from the beginning.
""",
    "verify": """\
A few hundred steps are trained twice, once interrupted at a random place: parameters, the update rule's
memory, counters and history are compared. Linear and mlp models only. The run itself is left as it is.
The descent that is verified runs on this machine, also where the run was made on Spark.
""",
    "explain": """\
What is explained is the output before its link: of two classes the log-odds of the last (`--label` names the
other), of several the logit of the predicted one, of counts the logarithm; of numbers it is in the target's
unit. For a linear model a contribution is weight times value, for all others integrated gradients; how far
their sum is from the output is printed below each row. See
[data.md](data.md#why-a-row-is-predicted-so).
""",
    "show": """\
`--json` prints, as the last line, one object of valid JSON; numbers that are not finite are `null` or text.
`fit` and `resume` print the same. `format` changes when a name gets another meaning; names may be added.

| name | holds |
|---|---|
| `run`, `report` | where they are |
| `format`, `steepest`, `created` | the format of the run, the version that made it, and when (UTC) |
| `command`, `settings` | what makes the run again: the command line, and `settings.toml` as an object |
| `data` | `files`, `rows`, `left_out` (a list of `reason` and `rows`), `fingerprints` |
| `split` | `training_rows`, `validation_rows`, `how` |
| `target` | `name`, `kind`, `labels`, `why`, `baseline` |
| `model` | `name`, `features`, `parameters`, `hidden`, and what else is known of its layers |
| `descent` | `loss`, `optimizer`, `learning_rate`, `schedule`, `batch_size`, `epochs`, `most_epochs`, \
`steps`, `seed`, `why_it_stopped`, `converged`, `seconds`, `rows_per_second`, `setbacks`, and `failure`, \
which is `null` if each step was finite |
| `figures` | `training` and `validation`, each `null` or `rows`, `scores`, `baseline` (`what`, `scores`), \
`notes` |
| `notes`, `findings` | sentences; and `finding`, `severity`, `where`, `evidence`, `try` of each finding |
| `seconds` | how long each part of the fit took |
| `workers` | of a fit on Spark, what each worker had to do; else empty |
""",
    "cache": """\
The cache is `steepest` in your folder for caches, or the folder that `STEEPEST_CACHE` names. What it
holds is known by the data's fingerprint and by all that decides how rows are encoded, so it is never
stale; clearing it costs time and nothing else.
""",
}
"""What a command's page says besides its help."""


def render() -> str:
    """Return the page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(_command(name, command) for name, command in commands.items())])


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    words = " ".join(_argument(each) for each in arguments)
    required = "".join(f" {each.opts[0]}{_value(each)}" for each in options if each.required)
    usage = " ".join(filter(None, ["steepest", name, words, required.strip(), "[OPTIONS]"]))
    prose = [PROSE[name]] if name in PROSE else []
    lines = [f"## steepest {name}", "", command.help, "", "```text", usage, "```", ""]
    lines += [*prose, "| | |", "|---|---|"]
    lines += [f"| `{_argument(each)}` | {each.help or ''} |" for each in arguments]
    lines += [f"| `{'`, `'.join(each.opts)}{_value(each)}` | {each.help or ''} |" for each in options]
    return "\n".join([*lines, ""])


def _argument(argument: Any) -> str:
    return (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")


def _value(option: Any) -> str:
    if option.is_flag:
        return ""
    return f" {option.metavar or option.name.upper()}".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
    print(PAGE.name)
