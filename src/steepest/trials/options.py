"""What the command line needs for commands that take the options of ``fit`` and several variants."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import typer.core

from steepest.settings import OF_SPARK

NOT_SHARED = (
    *("context", "data", "out", "from_", "overwrite", "checkpoint_every", "log", "json_", "debug"),
    *("on", *OF_SPARK),
)
"""Parameters of ``fit`` that only make sense there, or that each command has for itself."""


def with_fits_options(
    fit: Callable[..., None], but: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of ``fit``, which it takes as ``**options``, after its own.

    Parameters
    ----------
    fit
        The command whose options are shared.
    but
        Options that are left out, besides those that only make sense there.
    """

    def give(command: Callable[..., None]) -> Callable[..., None]:
        shared = {
            name: each
            for name, each in inspect.signature(fit, eval_str=True).parameters.items()
            if name not in (*NOT_SHARED, *but)
        }
        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD]
        last = [each for each in parameters if each.name in ("json_", "debug")]
        first = [each for each in parameters if each not in last]
        together = [*first, *shared.values(), *last]
        hints = get_type_hints(fit, include_extras=True) | get_type_hints(command, include_extras=True)
        command.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: hints[each.name] for each in together}
        return command

    return give


class Variants(typer.core.TyperCommand):
    """A command whose ``--variants`` takes all the words up to the next that is no variant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write ``--variants A B`` as ``--variants A --variants B``."""
        words: list[str] = []
        for word in args:
            before = words[-2:-1] == ["--variants"]
            words += ["--variants", word] if before and "=" in word and not word.startswith("-") else [word]
        return super().parse_args(ctx, words)
