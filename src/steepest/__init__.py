"""Gradient descent you can see, on data of any size."""

__version__ = "0.1.0"
