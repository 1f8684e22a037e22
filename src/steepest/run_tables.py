"""A run's tables as pandas: what its report shows, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from steepest.run import Run


def tables_of(run: Run) -> dict[str, pd.DataFrame]:
    """Return the tables that a run has: see `steepest.run.Run.tables`."""
    record = run.record
    search = record.get("learning_rate") or {}
    found = {
        "steps": run.steps,
        "epochs": run.epochs,
        "scores": pd.DataFrame(_scores(record["figures"])),
        "findings": pd.DataFrame(run.findings),
        "columns": pd.DataFrame(record["columns"]),
        "dropped": pd.DataFrame(record["dropped"]),
        "left_out": pd.DataFrame(record["data"]["left_out"]),
        "importances": pd.DataFrame((record["importances"] or {}).get("entries", ())),
        "words": pd.DataFrame(_words(record["words"])),
        "rates": pd.DataFrame({"rate": search.get("rates", ()), "loss": search.get("losses", ())}),
        "setbacks": pd.DataFrame(record["descent"]["setbacks"]),
        "workers": pd.DataFrame(record.get("workers", ())),
        "seconds": pd.DataFrame(record["seconds"].items(), columns=["doing", "seconds"]),
    }
    judged = record["figures"]["validation"] or record["figures"]["training"] or {"curves": {}}
    found |= {name: _curve(name, drawn) for name, drawn in judged["curves"].items()}
    return {name: table for name, table in found.items() if len(table)}


def _scores(figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part, judged in figures.items():
        for name, value in judged["scores"].items() if judged else ():
            baseline = judged["baseline"]["scores"].get(name)
            yield {"rows": part, "score": name, "model": value, "baseline": baseline}


def _words(words: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in words:
        for word in (*each["for"], *each["against"]):
            yield {"column": each["column"], "class": each["class"], **word}


def _curve(name: str, drawn: dict[str, Any]) -> pd.DataFrame:
    if name == "confusion":
        labels = pd.Index(drawn["labels"], name="true")
        return pd.DataFrame(drawn["rows"], labels, labels.rename("predicted"))
    if name == "residuals":
        edges = drawn["edges"]
        return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "rows": drawn["rows"]})
    return pd.DataFrame({column: values for column, values in drawn.items() if column != "sample"})
