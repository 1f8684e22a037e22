"""Callbacks that log a descent: JSON lines, TensorBoard, MLflow.

Each may stand among the ``callbacks`` of `steepest.fit`, `steepest.minimize` and all else that takes
`steepest.Callback`, or is named by ``--log``. The names are loaded when they are first used, and the packages
that they need when a log is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steepest.loggers.json_lines import JsonLines as JsonLines
    from steepest.loggers.ml_flow import MLflow as MLflow
    from steepest.loggers.tensor_board import TensorBoard as TensorBoard

_WHERE = {"JsonLines": "json_lines", "MLflow": "ml_flow", "TensorBoard": "tensor_board"}

__all__ = [*_WHERE]  # noqa: PLE0604 - the names stand above


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'steepest.loggers' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"steepest.loggers.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
