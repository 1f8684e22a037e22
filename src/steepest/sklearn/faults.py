"""Errors as scikit-learn's users expect them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steepest.errors import SteepestError


class InvalidError(SteepestError, ValueError):
    """What a `SteepestError` is in an estimator: a ``ValueError`` as well, as scikit-learn's contract asks.

    Examples
    --------
    >>> issubclass(InvalidError, ValueError)
    True
    """


@contextmanager
def value_errors() -> Iterator[None]:
    """Raise `InvalidError` for any `SteepestError`."""
    try:
        yield
    except InvalidError:
        raise
    except SteepestError as error:
        raise InvalidError(error.what, hint=error.hint) from None
