"""Front end: the command line. Heavy parts load within the commands, so that ``--help`` is quick.

Exit status: 0 if all went well, 2 for anything that the user can put right, 130 after Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

import typer

from steepest.commands import training, trying, using
from steepest.commands.words import INTERRUPTED, app, print_json
from steepest.errors import SteepestError

COMMANDS = training, using, trying
"""Modules whose commands registered themselves when they were imported."""

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What Typer raises for words that it does not understand; of its kinds, Typer gives a name to one only."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line on standard error."""
    if arguments is None:
        # This is the whole process: a kill ends it as Ctrl-C does, leaving nothing half-written.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(words or ["--help"], prog_name="steepest", standalone_mode=False)
    except SteepestError as error:
        if "--debug" in words:
            raise
        _fail(error, words)
    except USAGE_ERROR as error:
        what, command = error.format_message(), error.ctx.command_path if error.ctx else "steepest"
        what += "" if what.endswith((".", "?")) else "."
        _fail(SteepestError(what, hint=f"See {command} --help."), words)
    if status == INTERRUPTED:
        print("steepest: interrupted; nothing was written.", file=sys.stderr)
        sys.exit(status)


def _fail(error: SteepestError, words: list[str]) -> NoReturn:
    print(f"steepest: {' '.join(str(error).split())}", file=sys.stderr)
    if "--json" in words:
        print_json({"error": error.what, "hint": error.hint})
    sys.exit(2)
