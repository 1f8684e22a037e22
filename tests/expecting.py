"""What tests expect of errors."""

from __future__ import annotations

import contextlib

import pytest

from steepest.errors import SteepestError


@contextlib.contextmanager
def fails(*parts: str):
    """Expect an error of one line that has all parts and a hint."""
    with pytest.raises(SteepestError) as raised:
        yield
    message = str(raised.value)
    assert "\n" not in message
    assert raised.value.hint, "an error says what to try next"
    for part in parts:
        assert part in message
