"""The blocks of code in the pages, and what running them means.

A block is a fence that names its language:

- ``python``: is run, in order, in one namespace for each page; with ``>>>`` as a doctest. If the sentence
  before it says "save this as `NAME.py`", it becomes that file instead.
- ``console``: lines after ``$`` are commands, what follows each is what they print. ``sh``: commands alone.
- ``toml``: a settings file.
- ``text``: nothing to run; on the page that is generated, and what scripts printed on those of the examples.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt

from steepest import terminal
from steepest.cli import app, main
from steepest.combining import read_settings

ROOT = Path(__file__).parents[1]

PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

ONLY_PARSED = {
    "--on spark": "test_spark_cli.py runs fits on Spark",
    "hdfs://": "test_hdfs.py runs commands on HDFS",
    "data/flights.csv": "336,776 flights; the tutorial runs such commands on small data",
    "sales.csv": "the start page repeats README.md",
    "-completion": "writes into the reader's shell; test_completion.py tries it",
    "runs/electricity": "test_examples_electricity.py predicts so",
}
"""Commands with these words are read by the real parser, but not run, and why."""

NOT_RUN = {
    "pip": "installs",
    "python3": "makes an environment",
    "source": "enters an environment",
    "venv-pack": "packs an environment",
    "hdfs": "Hadoop's own program",
    "spark-submit": "needs a cluster",
    "vw": "Vowpal Wabbit comes with the benchmarks alone",
    "export": "sets what Spark's own programs read",
    "tensorboard": "serves pages",
    "mlflow": "serves pages",
    "apt-get": "fetches data",
    "dpkg-deb": "unpacks data",
    "npm": "fetches data",
}
"""Programs of others that a page may name, and why they are not run."""

NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
TIMING = re.compile(r"in [\d.]+ s \([\d,]+ rows/s\)")
WINDOWS_TO_CTRL_C = 3
"""A descent is interrupted where something of it has been saved."""


@dataclass(frozen=True)
class Block:
    """A fence of a page."""

    page: str
    line: int
    language: str
    text: str
    saved_as: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """Return the page's blocks; one that names no language has an empty one."""
    found, before = [], ""
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text("utf-8")):
        if token.type == "inline":
            before = token.content
        elif token.type in ("fence", "code_block"):
            saved = re.search(r"[Ss]ave\s+this\s+as\s+`(\w+\.py)`", before)
            found.append(
                Block(page, token.map[0] + 1, token.info.strip(), token.content, saved[1] if saved else "")
            )
            before = ""
    return found


class Page:
    """Runs a page's blocks in the working folder, one after the other.

    Parameters
    ----------
    names
        What python blocks find in their namespace.
    swaps
        What stands in a block -> what is run in its place.
    """

    def __init__(self, names: dict[str, Any], swaps: dict[str, str]) -> None:
        self.names, self.swaps = names, swaps
        self.ran: set[str] = set()

    def run(self, block: Block) -> None:
        text = block.text
        for written, instead in self.swaps.items():
            text = text.replace(written, instead)
        if block.saved_as:
            Path(block.saved_as).write_text(text, "utf-8")
        elif block.language == "python":
            self._python(block, text)
        elif block.language in ("console", "sh"):
            for command, printed in commands_of(text, prompted=block.language == "console"):
                self._command(block.place, command, printed)
        elif block.language == "toml":
            Path("settings.toml").write_text(text, "utf-8")
            read_settings("settings.toml")
        else:
            raise AssertionError(
                f"{block.place}: nobody knows how to run {block.language or 'no language'!r}"
            )

    def used(self) -> set[str]:
        """Return the files that were run or imported."""
        return self.ran | {f"{name}.py" for name in sys.modules}

    def _python(self, block: Block, text: str) -> None:
        if ">>>" not in text:
            exec(compile("\n" * block.line + text, ROOT / block.page, "exec"), self.names)
            return
        # Doctests copy their namespace, and later blocks go on with what these leave.
        test = doctest.DocTestParser().get_doctest(text, {}, block.place, str(ROOT / block.page), block.line)
        test.globs = self.names
        said = io.StringIO()
        failed = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.write, clear_globs=False).failed
        assert not failed, said.getvalue()

    def _command(self, place: str, command: str, printed: str) -> None:
        words = shlex.split(command, comments=True)
        is_python = words[0] in ("python", ".venv/bin/python")
        reasons = [reason for word, reason in ONLY_PARSED.items() if word in command]
        if words[0] == "steepest":
            parse(words[1:])
            if not reasons:
                said = run_steepest(words[1:], interrupted="^C" in printed)
                assert not printed or alike(said, printed), (
                    f"{place}: {command}\nprints\n{said}\nand not\n{printed}"
                )
        elif words[0] == "make":
            assert re.search(f"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), command
        elif is_python and Path(words[1]).exists():
            runpy.run_path(words[1], run_name="__main__")
            self.ran.add(words[1])
        elif is_python and words[1] != "-m":
            assert (ROOT / words[1]).exists(), f"{place}: there is no {words[1]}"
        else:
            assert words[0] in NOT_RUN or is_python, f"{place}: {command}"


def commands_of(text: str, *, prompted: bool) -> list[tuple[str, str]]:
    """Return each command and what it is said to print.

    Examples
    --------
    >>> commands_of("$ one \\\\\\n  --two\\nsaid\\n$ three && four\\n", prompted=True)
    [('one    --two', 'said'), ('three', ''), ('four', '')]
    """
    found: list[tuple[str, str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not prompted or line.startswith("$ "):
            found += [(each, "") for each in line.removeprefix("$ ").split(" && ") if each.strip()]
        else:
            command, printed = found[-1]
            found[-1] = command, f"{printed}\n{line}".strip("\n")
    return found


def parse(words: list[str]) -> None:
    """Read a command as the command line does, and stop there."""
    if words[0].startswith("--"):
        assert words[0] in known_options()
    else:
        command = typer.main.get_command(app).commands[words[0]]
        command.make_context(f"steepest {words[0]}", words[1:])


def run_steepest(words: list[str], *, interrupted: bool) -> str:
    """Run a command in this process; return what it prints, in the order in which it does."""
    said, status = io.StringIO(), 0
    progress = _Pressed if interrupted else terminal.Progress
    before, terminal.Progress = terminal.Progress, progress
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main(words)
    except SystemExit as stop:
        status = stop.code
    finally:
        terminal.Progress = before
    assert status == (130 if interrupted else 0), f"steepest {shlex.join(words)}\n{said.getvalue()}"
    return said.getvalue().replace("steepest: interrupted", "^C\nsteepest: interrupted")


class _Pressed(terminal.Progress):
    """Ctrl-C, while it descends."""

    windows = 0

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:
        self.windows += 1
        if self.windows == WINDOWS_TO_CTRL_C:
            raise KeyboardInterrupt


def alike(said: str, wanted: str) -> bool:
    """Whether two outputs have the same words, and numbers that are near each other; times may be any.

    Examples
    --------
    >>> alike("loss 0.4184\\n in 1.2 s (3 rows/s)", "loss 0.4185 in 9.1 s (5 rows/s)")
    True
    >>> alike("loss 0.4184", "loss 0.5184"), alike("loss 0.4184", "cost 0.4184")
    (False, False)
    """
    one, other = (TIMING.sub("in a while", " ".join(each.split())) for each in (said, wanted))
    pairs = zip(map(_number, NUMBER.findall(one)), map(_number, NUMBER.findall(other)), strict=False)
    return NUMBER.sub("#", one) == NUMBER.sub("#", other) and all(
        abs(left - right) <= 0.02 * max(abs(left), abs(right), 0.1) for left, right in pairs
    )


def _number(text: str) -> float:
    return float(text.replace(",", "").rstrip("."))


def options_named_in(page: str) -> set[str]:
    """Return the options that the page's running text names in code."""
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))
    codes = [part.content for token in tokens for part in token.children or () if part.type == "code_inline"]
    return {option for code in codes for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}


def known_options() -> set[str]:
    """Return every option of every command."""
    group = typer.main.get_command(app)
    commands = [group, *group.commands.values()]
    return {name for command in commands for option in command.params for name in option.opts} | {"--help"}


@contextlib.contextmanager
def working_in(folder: Path):
    """Work in a folder, whose modules can be imported, and forget these afterwards."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)
