"""Write docs/command-line.md from the command line itself: python docs/generate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from steepest.cli import app

PAGE = Path(__file__).with_name("command-line.md")

HEAD = """# The command line

Written by `docs/generate.py` from `steepest --help`; a test fails when it is stale.

Every command ends with exit status 0 if all went well, 2 with one line on standard error for anything that
you can put right, and 130 after Ctrl-C. Results go to standard output, words on the way to standard error.
"""


def render() -> str:
    """Return the page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(_command(name, command) for name, command in commands.items())])


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    words = " ".join(_argument(each) for each in arguments)
    required = "".join(f" {each.opts[0]}{_value(each)}" for each in options if each.required)
    usage = f"    steepest {name} {words}{required} [OPTIONS]"
    lines = [f"## steepest {name}", "", command.help, "", usage, "", "| | |", "|---|---|"]
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
