"""The commands of the command line; `steepest.cli` runs them."""
