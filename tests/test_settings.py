"""Settings: TOML round trips, and what a settings file may hold."""

from __future__ import annotations

import inspect
import shlex
import tomllib
from dataclasses import asdict, fields

import hypothesis
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from steepest import cli
from steepest.combining import KINDS, combine, read_settings
from steepest.commands import training
from steepest.commands.words import columns_of, kinds_of, lags_of
from steepest.errors import SteepestError
from steepest.recording import command
from steepest.settings import NAMES, Settings, to_toml

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
NAMES_OF_COLUMNS = st.text("abc é=:", min_size=1, max_size=5).filter(
    lambda name: name == name.strip() and "=list:" not in name
)
NUMBERS = st.floats(0, 1e6, allow_nan=False)

SETTINGS = st.builds(
    Settings,
    data=st.lists(WORDS, min_size=1, max_size=3).map(tuple),
    target=WORDS,
    hidden=st.lists(st.integers(1, 512), min_size=1, max_size=3).map(tuple),
    loss=st.none() | st.just("huber"),
    learning_rate=st.just("auto") | NUMBERS,
    batch_size=st.just("all") | st.integers(1, 4096),
    epochs=st.none() | st.integers(1, 100),
    l1=NUMBERS,
    validation=NUMBERS | st.just("last:0.1") | WORDS.map("{}.csv".format),
    split_by=st.none() | WORDS,
    drop=st.lists(WORDS, max_size=3).map(tuple),
    log=st.lists(WORDS, max_size=2).map(tuple),
    select=st.none() | st.just("auto") | st.integers(1, 100),
    kinds=st.dictionaries(NAMES_OF_COLUMNS, st.sampled_from(["hashed", "text", "list", "list:|", "list:=,"])),
    cross=st.lists(
        st.lists(NAMES_OF_COLUMNS, min_size=2, max_size=3, unique=True).map(tuple), max_size=2, unique=True
    ).map(tuple),
    lags=st.dictionaries(
        NAMES_OF_COLUMNS, st.lists(st.integers(1, 500), min_size=1, max_size=3, unique=True).map(tuple)
    ),
    hash_bits=st.integers(10, 28),
    minimum_count=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    out=st.none() | WORDS,
)


@given(SETTINGS)
def test_settings_survive_toml(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_text(to_toml(settings), "utf-8")
    assert combine(str(path), {}) == settings


@hypothesis.settings(deadline=None)
@given(SETTINGS)
def test_the_recorded_command_is_what_the_command_line_reads(settings):
    if any(word.startswith("-") for word in settings.data):
        return
    context = cli_context(shlex.split(command(settings))[2:])
    for name, expected in asdict(settings).items():
        read = AS_SETTING.get(name, lambda each: each)(context.params[name])
        assert read == expected, name


AS_SETTING = {
    "data": lambda read: tuple(read or ()),
    "drop": lambda read: tuple(read or ()),
    "log": lambda read: tuple(read or ()),
    "kinds": lambda read: kinds_of(read or []),
    "cross": lambda read: tuple(map(columns_of, read or [])),
    "lags": lambda read: lags_of(read or []),
}


def cli_context(words):
    """Parse words as the command line does, without running anything."""
    import typer

    group = typer.main.get_command(cli.app)
    return group.commands["fit"].make_context("fit", words)


def test_every_setting_is_an_option_with_the_same_default_and_can_stand_in_a_file():
    parameters = inspect.signature(training.fit).parameters
    assert set(NAMES) <= set(parameters)
    assert set(KINDS) == set(NAMES) == {field.name for field in fields(Settings)}
    read = cli_context([]).params
    for name, value in asdict(Settings()).items():
        assert read[name] == value or (not read[name] and not value), name


def test_settings_that_are_none_are_left_out():
    written = tomllib.loads(to_toml(Settings(data=("a.csv",), target="y")))
    assert set(NAMES) - set(written) == {
        "loss", "clip_norm", "epochs", "split_by", "weights", "class_weight", "out",
        "patience", "memory", "from_", "select", "validation_column", "workers", "master", "shared",
        "kinds", "lags", "minimum_count",
    }  # fmt: skip


def test_what_is_given_overrides_the_file(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('data = ["a.csv"]\ntarget = "y"\nepochs = 7\ndrop = ["a", "b"]\n')
    settings = combine(str(path), {"epochs": 3, "target": "z"})
    assert settings == Settings(data=("a.csv",), target="z", epochs=3, drop=("a", "b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = = 1", "is not valid TOML"),
        ("epoch = 3", "sets 'epoch', which there is not. Did you mean 'epochs'?"),
        ("[fit]\nepochs = 1", "sets 'fit', which there is not"),
        ("epochs = '3'", "sets epochs = '3', but it takes a whole number"),
        ("epochs = 1.5", "sets epochs = 1.5, but it takes a whole number"),
        ("epochs = true", "sets epochs = True, but it takes a whole number"),
        ("cross = ['a,b']", "sets cross = ['a,b'], but each of these is a list of columns"),
        ("cross = [['a', 1]]", "but each of these is text"),
        ("kinds = 'a=hashed'", "sets kinds = 'a=hashed', but it takes a table of names"),
        ("kinds.a = 3", "but each of these is text"),
        ("lags.a = 3", "sets lags = {'a': 3}, but each of these is a list of numbers of rows"),
        ("lags.a = ['3']", "but each of these is a whole number"),
        ("data = 'a.csv'", "sets data = 'a.csv', but it takes a list"),
        ("hidden = [1.5]", "sets hidden = [1.5], but each of these is a whole number"),
        ("hidden = [true]", "sets hidden = [True], but each of these is a whole number"),
        ("drop = [1]", "sets drop = [1], but each of these is text"),
        ("target = 2013-01-01", "but it takes text"),
        ("batch_size = 1.5", "but it takes a whole number or text"),
        ("validation = [0.1]", "but it takes a whole number or a number or text"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path, text, said):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(SteepestError) as error:
        read_settings(str(path))
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_a_settings_file_that_is_none(tmp_path):
    with pytest.raises(SteepestError, match=r"There is no settings file .*nope.toml"):
        read_settings(str(tmp_path / "nope.toml"))
    with pytest.raises(SteepestError, match=r"is a folder. Did you mean .*settings.toml"):
        read_settings(str(tmp_path))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SteepestError, match="is not valid TOML"):
        read_settings(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    ("given", "said"),
    [({"target": "y"}, "No data was named"), ({"data": ("a.csv",)}, "No target was named")],
)
def test_data_and_target_must_be_named(given, said):
    with pytest.raises(SteepestError, match=said):
        combine(None, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kinds": {"m": "hashd"}}, "'hashd'. Did you mean 'hashed'?"),
        ({"kinds": {"m": "list:"}}, "'list:'"),
        ({"cross": (("m",),)}, "two or more different columns, not of m"),
        ({"cross": (("m", "m"),)}, "two or more different columns, not of m, m"),
        ({"cross": (("m", "n"), ("m", "n"))}, "asked for twice"),
        ({"hash_bits": 29}, "2^10 to 2^28 places, not 2^29"),
        ({"minimum_count": 0}, "at least 1, not 0"),
    ],
)
def test_wishes_that_no_table_can_fulfil(given, said):
    with pytest.raises(SteepestError) as raised:
        combine(None, {"data": ("a.csv",), "target": "y", **given})
    assert said in str(raised.value)


def test_kinds_on_the_command_line():
    assert kinds_of(["m=hashed", "a=b=text", "t=list:=", "x:y=words"]) == {
        "m": "hashed", "a=b": "text", "t": "list:=", "x:y": "words",
    }  # fmt: skip
    for wrong in ("m", "m=", "=text"):
        with pytest.raises(typer.BadParameter, match="no kind"):
            kinds_of([wrong])
