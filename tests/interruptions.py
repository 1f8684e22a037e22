"""Callbacks that interrupt a descent."""

from __future__ import annotations

import steepest


class StopsAfter(steepest.Callback):
    """Raises an error once so many windows are over."""

    def __init__(self, windows, error):
        self.left, self.error = windows, error

    def on_window_end(self, epoch, rows, loss):
        self.left -= 1
        if not self.left:
            raise self.error
