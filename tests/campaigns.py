"""Which cases of a test every run takes, and which only a campaign."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def among(cases: Iterable[Any], *always: Any) -> list[Any]:
    """Return all cases, of which `make test` runs those named and `make test-slow` the others."""
    return [case if case in always else pytest.param(case, marks=pytest.mark.slow) for case in cases]
