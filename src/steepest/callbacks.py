"""Hooks into a descent: empty methods to override, and one `notify` that calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steepest.descent.history import Figures, Floats
    from steepest.descent.standing import Setback
    from steepest.result import Result
    from steepest.run import Run


class Callback:
    """Hooks that do nothing; override those that you want.

    No hook is called within a window of steps, because there the descent is one compiled program.
    A hook may raise `steepest.StopDescent` with a reason, in `on_epoch_end`.

    Examples
    --------
    >>> import steepest
    >>> class Patience(steepest.Callback):
    ...     def on_epoch_end(self, figures):
    ...         if figures["loss"] < 0.5:
    ...             raise steepest.StopDescent("the loss is low enough")
    """

    def on_rows_seen(self, doing: str, rows: int, of: int | None) -> None:
        """While data is read: what is being done, the rows so far, and of how many where that is known."""

    def on_settings(self, settings: Mapping[str, Any]) -> None:
        """Before a fit reads its data, and before a descent begins: what was asked for, as plain JSON.

        A fit calls this twice: with its settings and ``run``, where the run will be, and then with what the
        descent makes of them, such as the learning rate that was found.
        """

    def on_resume(self, epochs: Sequence[Figures], step: int, setbacks: int) -> None:
        """Before a descent that goes on from a checkpoint: its epochs, steps and setbacks so far."""

    def on_descent_begin(self, epochs: int, rows: int) -> None:
        """Before the first step; ``rows`` is the number of rows of an epoch."""

    def on_steps_taken(self, first: int, figures: Mapping[str, Floats]) -> None:
        """After some steps: the number of the first, from 1, and what each had.

        ``figures`` are ``loss``, ``gradient_norm`` and ``learning_rate``, ``[steps]`` each; no gradient norm
        of Keras models.
        """

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:
        """After some steps: the epoch (from 1), its rows so far, and its mean loss so far."""

    def on_epoch_end(self, figures: dict[str, float]) -> None:
        """After an epoch and its validation, with the row that `Result.epochs` will have for it."""

    def on_setback(self, setback: Setback) -> None:
        """After a step that was not finite, if the descent goes back and on at a smaller rate."""

    def on_descent_end(self, result: Result) -> None:
        """After the last step."""

    def on_run_end(self, run: Run) -> None:
        """After a fit, when its run is complete; also if its descent diverged."""

    def on_failure(self, error: BaseException) -> None:
        """When a descent, or a fit, ends by an error or is interrupted; a fit may call this twice."""


def notifier(callbacks: Sequence[Callback]) -> Callable[..., None]:
    """Return ``notify(event, **details)``, which calls ``on_<event>(*details)`` of each callback in turn."""

    def notify(event: str, **details: object) -> None:
        for callback in callbacks:
            getattr(callback, f"on_{event}")(*details.values())

    return notify


@contextmanager
def telling_of_failure(notify: Callable[..., None]) -> Iterator[None]:
    """Let callbacks know of an error, or an interruption, that ends what they look at."""
    try:
        yield
    except BaseException as error:
        notify("failure", error=error)
        raise
