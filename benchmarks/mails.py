"""SpamAssassin's 6,046 mails: linear models of their words, beside Vowpal Wabbit and scikit-learn.

The contestants and their passes are those of `text.py`. A fifth of the mails, drawn at random, is held out.
Steepest and scikit-learn read subject and body as they are; Vowpal Wabbit, whose format wants words apart,
gets those that scikit-learn finds.

    python benchmarks/mails.py

prints what each rate led to as well.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from measure import Report
from text import Found, compare, tell

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

HELD = 0.2


def write(folder: Path, mails: pd.DataFrame) -> None:
    """Write the mails, those to learn from and those held out, in the contestants' formats."""
    order = np.random.Generator(np.random.Philox(0)).permutation(len(mails))
    held = int(HELD * len(mails))
    rows = pd.DataFrame({"text": mails["text"], "y": (mails["label"] == "spam").astype(np.int8)})
    for part, numbers in (("held", order[:held]), ("part", order[held:])):
        some = rows.iloc[numbers]
        some.to_parquet(folder / f"{part}.parquet", index=False)
        with (folder / f"{part}.vw").open("w", encoding="utf-8") as file:
            for text, label in some.itertuples(index=False):
                words = re.findall(r"(?u)\b\w\w+\b", text.lower())
                file.write(f"{'1' if label else '-1'} | {' '.join(words)}\n")


def compared() -> tuple[Report, dict[str, Found]]:
    """Return the report, and what each contestant found."""
    import real_data

    mails = real_data.mails()
    return compare(f"SpamAssassin's {len(mails):,} mails", "mails", lambda folder: write(folder, mails))


def run(rounds: int) -> Report:  # noqa: ARG001 - a contestant's passes are its rounds
    return compared()[0]


if __name__ == "__main__":
    tell(*compared())
