"""Descents on one table beside each other: rates that are tried, and variants that are compared."""
